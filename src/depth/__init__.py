"""Depth from one picture: a backbone, a head, metres for each pixel."""
