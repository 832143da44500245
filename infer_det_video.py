"""Detect objects in a video: infer_det_video.py --model best_model.pth --input X (see --help)."""

from src.detection.infer import main_video

if __name__ == "__main__":
    main_video()
