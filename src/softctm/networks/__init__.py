"""What is trained, in PyTorch: one file an architecture, a table of them by name, weights on disk.

`config` needs no PyTorch; everything else here does.
"""
