"""Detect objects in images: python infer_det_image.py --model outputs/img_det/best_model.pth --input X."""

from src.detection.infer import main_image

if __name__ == "__main__":
    main_image()
