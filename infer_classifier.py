"""Classify images: python infer_classifier.py --model best_model.pth --input PATH (--help)."""

from src.classification.infer import main

if __name__ == "__main__":
    main()
