"""Measurements: the detector beside the baseline (`python -m benchmarks`), training recipes compared."""
