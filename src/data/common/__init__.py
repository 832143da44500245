"""What the packages of data share: images, faults, pairs, loaders, reports."""
