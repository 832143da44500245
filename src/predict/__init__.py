"""One predictor for images, folders and video frames."""
