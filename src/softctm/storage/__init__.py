"""Files: text, JSON and CSV read in one way, written whole or not at all; arrays that know their sources."""
