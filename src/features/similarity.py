"""The cosine of two images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from .extract import compute
from .model import FeatureExtractor, build_feature_extractor
from .settings import SimilarityOptions

log = logging.getLogger(__name__)


def vectors_of(model: FeatureExtractor, paths: Sequence[Path], batch: int = 32) -> np.ndarray:
    """float32 [N, D], a row for each image in order. UserError when one cannot be read."""
    blocks = []
    whole = [(0, range(len(paths)))]
    for _, chunk in compute(model, paths, whole, batch=batch):
        if chunk.faults:
            raise UserError(chunk.faults[0][1])
        blocks.append(chunk.features)
    return np.concatenate(blocks)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of two vectors [D], in -1..1."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def run_similarity(options: SimilarityOptions) -> int:
    """``python -m src.features similarity A B``: logs the cosine."""
    for path in options.images:
        if not path.is_file():
            raise UserError(f"no such image: {path}")
    model = build_feature_extractor(options, options.what)
    vectors = vectors_of(model, options.images)
    log.info("%.6f", cosine(vectors[0], vectors[1]))
    return 0
