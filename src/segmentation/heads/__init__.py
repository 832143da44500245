"""Segmentation heads: feature maps in, logits out."""
