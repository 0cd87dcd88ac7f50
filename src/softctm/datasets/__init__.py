"""Datasets on disk: OCELOT's release, its annotations, folds by patient."""
