"""Measurements: the detector beside the plain way (`python -m benchmarks`), training recipes compared."""
