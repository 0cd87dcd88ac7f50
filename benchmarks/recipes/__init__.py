"""Training recipes side by side: short runs of tissue or cell networks on several folds."""
