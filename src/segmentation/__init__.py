"""Semantic segmentation: a backbone, a head, one class for each pixel."""
