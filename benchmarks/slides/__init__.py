"""Whole slides: speed and memory, and how little depends on where a field lies."""
