"""Tests of the detection heads."""
