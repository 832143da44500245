"""recall@k and mAP of a backbone on a labelled folder, beside what chance gives."""

from __future__ import annotations

import glob
import logging
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.files import require_writable, write_json
from ..core.paths import output_folder
from ..data.common.images import list_images
from ..features.model import FeatureExtractor, build_feature_extractor
from ..metrics.retrieval import RetrievalScores, retrieval_scores
from .settings import EvaluateOptions
from .vectors import ImageVectors, forget, index_vectors

log = logging.getLogger(__name__)


def labelled_images(folder: str) -> list[Path]:
    """The images of DIR/class/image. UserError when there are fewer than two classes."""
    if not Path(folder).is_dir():
        raise UserError(f"no such folder: {folder}")
    pattern = str(Path(glob.escape(folder)) / "*" / "*")
    try:
        paths = list_images(pattern)
    except UserError:
        paths = []
    classes = {path.parent.name for path in paths}
    if len(classes) < 2:
        raise UserError(
            f"{folder} must hold a folder of images for each of two or more classes "
            f"(DIR/class/image.jpg); found: {', '.join(sorted(classes)) or 'none'}"
        )
    return paths


def _labels(paths: list[Path], names: list[str]) -> np.ndarray:
    numbers = {name: i for i, name in enumerate(names)}
    return np.array([numbers[path.parent.name] for path in paths])


def evaluate_folders(
    model: FeatureExtractor, queries: ImageVectors, gallery: ImageVectors | None, ks: list[int]
) -> RetrievalScores:
    """Scores of labelled vectors (the label is the folder's name); gallery None: leave one out."""
    searched = gallery or queries
    names = sorted({path.parent.name for path in (*queries.paths, *searched.paths)})
    return retrieval_scores(
        queries.vectors,
        _labels(queries.paths, names),
        searched.vectors,
        _labels(searched.paths, names),
        ks,
        leave_one_out=gallery is None,
    )


def run_evaluate(options: EvaluateOptions) -> int:
    """``evaluate``. The exit code: 0, or 1 when images were unreadable. Raises UserError."""
    paths = labelled_images(options.input)
    others = labelled_images(options.gallery) if options.gallery else []
    out_dir = require_writable(output_folder(options.out_dir))
    work = out_dir / ".vectors.part"
    model = build_feature_extractor(options, options.what, unit=True)
    queries = index_vectors(model, paths, work, options)
    gallery = index_vectors(model, others, work, options) if others else None
    if queries is None:
        return 0
    scores = evaluate_folders(model, queries, gallery, options.k)
    _tell(scores)
    faults = queries.faults + (gallery.faults if gallery else [])
    content = {
        "identity": model.identity.plain(),
        "queries": scores.queries,
        "gallery": len((gallery or queries).paths),
        "recall": scores.recall,
        "mAP": scores.mean_ap,
        "chance": {"recall": scores.chance_recall, "mAP": scores.chance_mean_ap},
        "faults": faults,
    }
    write_json(out_dir / "scores.json", content)
    forget(work)
    log.info("results are in %s: scores.json", out_dir)
    return 1 if faults else 0


def _tell(scores: RetrievalScores) -> None:
    log.info("%d queries            measured  chance", scores.queries)
    for k, value in scores.recall.items():
        log.info("recall@%-14d %9.4f %7.4f", k, value, scores.chance_recall[k])
    log.info("mAP                   %9.4f %7.4f", scores.mean_ap, scores.chance_mean_ap)
    if scores.alone:
        log.info("%d queries left out: no other image of their class", scores.alone)
