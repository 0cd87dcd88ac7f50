"""Jobs of nuclei: finding them in images, validating and exporting trained networks."""
