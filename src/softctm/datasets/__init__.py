"""Datasets on disk by name, their annotations, folds by patient."""
