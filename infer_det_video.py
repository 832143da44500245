"""Detect objects in a video: python infer_det_video.py --model outputs/img_det/best_model.pth --input X."""

from src.detection.infer import main_video

if __name__ == "__main__":
    main_video()
