"""What is particular to nuclei on slides: one lattice, maps that are joined, what is written of them."""
