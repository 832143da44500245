"""Image retrieval: an index over a folder, search, near-duplicates, evaluation."""
