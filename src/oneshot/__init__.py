"""One reference mask, and the same thing found in other images and along a video."""
