"""YOLO with a frozen DINO's context, or taught by it, on unmodified ultralytics (AGPL-3.0)."""
