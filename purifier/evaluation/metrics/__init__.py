"""Measures of classifiers, detectors, segmenters and ranked labels."""
