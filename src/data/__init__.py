"""Readers of images and annotations, transforms, loaders, drawn data, the dataset doctor."""
