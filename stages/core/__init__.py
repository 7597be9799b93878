"""Pure logic: no I/O, no clock, no global random state."""
