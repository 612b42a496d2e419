"""The scripts that measure and make what the project ships, and the results."""
