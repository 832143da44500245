"""DINOv3 and DINOv2 backbones on timm, with the methods of the official hub models."""
