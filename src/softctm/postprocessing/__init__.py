"""From probability maps to cells: one file a method."""
