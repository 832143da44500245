"""Segmentation data: images and masks."""
