"""DINOv3 and DINOv2 backbones through torch.hub, and the feature pyramids on them."""
