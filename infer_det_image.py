"""Detect objects in images: infer_det_image.py --model best_model.pth --input X (see --help)."""

from src.detection.infer import main_image

if __name__ == "__main__":
    main_image()
