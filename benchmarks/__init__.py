"""Speed and comparisons, each a command: ``python -m benchmarks.X``; never a timed test."""
