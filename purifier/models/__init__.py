"""Models: loading by name, features of a layer, normalisation, and our reference models."""
