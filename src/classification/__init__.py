"""Image classification: a backbone, a head, one class (or several) for each image."""
