"""Rewriting a network as it is opened: one file a pass."""
