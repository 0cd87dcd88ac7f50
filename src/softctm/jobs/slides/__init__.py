"""The job for whole slides: planned in stretches, computed here or on a cluster, written one by one."""
