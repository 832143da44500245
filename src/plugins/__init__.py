"""What builds on a package of another licence: each in a folder of its own, imported by nothing."""
