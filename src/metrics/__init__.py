"""Figures of merit, each with update() and compute()."""
