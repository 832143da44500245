"""Frozen features of many images: class tokens, pooled patches, whole maps; similarity."""
