"""From probability maps to cells: one file per method."""
