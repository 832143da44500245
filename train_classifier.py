"""Train classification: python train_classifier.py --train-dir DIR --valid-dir DIR (--help)."""

from src.classification.train import main

if __name__ == "__main__":
    main()
