"""Train segmentation: python train_segmentation.py --config segmentation_configs/camvid.yaml."""

from src.segmentation.train import main

if __name__ == "__main__":
    main()
