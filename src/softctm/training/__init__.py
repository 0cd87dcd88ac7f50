"""Training: targets, augmentation, losses, folds, the loop, export. Needs PyTorch (the `train` extra)."""
