"""What is particular to cells on slides: two lattices, a tissue map, points, and what is written of them."""
