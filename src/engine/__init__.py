"""The one training loop, its optimizers, hooks and checkpoints; knows no task."""
