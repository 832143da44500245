"""DINO Stack: one DINO backbone, many vision tasks."""
