"""Several models, one backbone pass: infer_multi.py --model A --model B --input X (see --help)."""

from src.multi import main

if __name__ == "__main__":
    main()
