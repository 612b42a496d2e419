"""Time and memory of the purifiers."""
