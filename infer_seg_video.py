"""Segment a video: python infer_seg_video.py --model best_model.pth --input PATH (--help)."""

from src.segmentation.infer import main_video

if __name__ == "__main__":
    main_video()
