"""Self-distillation on unlabelled images: python train_ssl.py --images DIR (--help)."""

from src.pretraining.train import main

if __name__ == "__main__":
    main()
