"""Somebody's model: loading it by name, its features, its normalisation, and our reference models."""
