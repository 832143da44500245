"""Train a detector: python train_detection.py --config detection_configs/demo.yaml (see --help)."""

from src.detection.train import main

if __name__ == "__main__":
    main()
