"""What is trained, in PyTorch: one file an architecture, a table of them by name, weights on disk.

`network_config` and `ranges` need no PyTorch; everything else here does.
"""
