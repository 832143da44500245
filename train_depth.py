"""Train depth: python train_depth.py --config depth_configs/nyu.yaml (--help)."""

from src.depth.train import main

if __name__ == "__main__":
    main()
