"""Depth of a video: python infer_depth_video.py --model best_model.pth --input PATH (--help)."""

from src.depth.infer import main_video

if __name__ == "__main__":
    main_video()
