"""Depth data: images and depth files."""
