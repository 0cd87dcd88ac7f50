"""Training of networks that outline and name nuclei, from images with instance masks."""
