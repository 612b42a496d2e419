"""Data sets on many workers, services, and what they cost."""
