"""Self-distillation on one's own images (DINO, iBOT, KoLeo, Gram), and distillation into small models."""
