"""Accuracy of models behind the purifiers."""
