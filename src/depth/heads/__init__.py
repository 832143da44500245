"""Depth heads: one file each, and the table of them."""
