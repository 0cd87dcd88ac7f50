"""Predictions against annotations: the challenge's score and what lies behind it."""
