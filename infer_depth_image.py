"""Depth of images: python infer_depth_image.py --model best_model.pth --input PATH (--help)."""

from src.depth.infer import main_image

if __name__ == "__main__":
    main_image()
