"""Data of instance and panoptic segmentation: a mask and a class for each object."""
