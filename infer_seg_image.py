"""Segment images: python infer_seg_image.py --model best_model.pth --input PATH (--help)."""

from src.segmentation.infer import main_image

if __name__ == "__main__":
    main_image()
