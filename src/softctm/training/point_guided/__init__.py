"""Training of the network that outlines the nucleus at a point."""
