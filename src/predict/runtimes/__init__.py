"""Exported models: what their files say of themselves, and the runtimes that run them."""
