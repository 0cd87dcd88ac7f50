"""Scores of nuclei: detection, panoptic quality, types; intervals over images or patients."""
