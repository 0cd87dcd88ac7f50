"""The method: test-time augmentation, ensembles, tissue context, the detector."""
