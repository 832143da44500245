"""Self-distillation on one's own images (DINO, iBOT, KoLeo, Gram); distillation to small models."""
