"""Groups of near-duplicate images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..core.files import require_writable, write_json
from ..core.paths import output_folder
from ..data.common.images import image_size_of, list_images, write_image
from ..features.model import build_feature_model
from ..visualise.draw import contact_sheet
from .index import VectorIndex, choose_kind
from .search import CELL, picture_of
from .settings import DuplicatesOptions
from .vectors import forget, vectors_of

log = logging.getLogger(__name__)

EXACT_LIMIT = 100_000
NEIGHBOURS = 32


def similar_pairs(vectors: np.ndarray, threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, of unit vectors [N, D] with a cosine of at least ``threshold``.

    Every pair up to 100 000 vectors; beyond, the pairs among each one's 32 nearest.
    """
    count = len(vectors)
    if count > EXACT_LIMIT:
        kind, why = choose_kind(*vectors.shape)
        log.info("neighbours by an index, %s; %s", kind, why)
        index = VectorIndex.build(kind, vectors, np.arange(count))
        scores, ids = index.search(vectors, NEIGHBOURS)
        for i, j in zip(*np.nonzero((scores >= threshold) & (ids > np.arange(count)[:, None]))):
            yield int(i), int(ids[i, j])
        return
    block = max(1, min(2048, 2**25 // count))
    for start in range(0, count, block):
        scores = vectors[start : start + block] @ vectors[start:].T
        for i, j in np.argwhere(np.triu(scores >= threshold - 1e-6, 1)):
            yield start + int(i), start + int(j)


def group(count: int, pairs: Iterator[tuple[int, int]]) -> list[list[int]]:
    """Connected groups of two or more, the largest first: two of a group may be linked only
    through a third."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        a, b = root(i), root(j)
        parent[max(a, b)] = min(a, b)
    members: dict[int, list[int]] = {}
    for i in range(count):
        members.setdefault(root(i), []).append(i)
    return sorted((m for m in members.values() if len(m) > 1), key=lambda m: (-len(m), m[0]))


def run_duplicates(options: DuplicatesOptions) -> int:
    """``duplicates``. The exit code: 0, or 1 when images were unreadable. Raises UserError."""
    paths = list_images(options.input)
    out_dir = require_writable(output_folder(options.out_dir))
    work = out_dir / ".vectors.part"
    model = build_feature_model(options, options.what, unit=True)
    found = vectors_of(model, paths, work, options)
    if found is None:
        return 0
    groups = group(len(found.paths), similar_pairs(found.vectors, options.threshold))
    content = [_describe(found.paths, found.vectors, members) for members in groups]
    for number, described in enumerate(content[: options.sheets], 1):
        write_image(out_dir / f"group_{number:03}.jpg", _sheet(described), 85)
    header = {"threshold": options.threshold, "images": len(found.paths), "faults": found.faults}
    write_json(out_dir / "duplicates.json", {**header, "groups": content})
    forget(work)
    surplus = sum(len(members) - 1 for members in groups)
    log.info(
        "%d images: %d groups of near-duplicates, %d images more than needed",
        *(len(found.paths), len(groups), surplus),
    )
    log.info("results are in %s: duplicates.json and a contact sheet a group", out_dir)
    return 1 if found.faults else 0


def _describe(paths: list[Path], vectors: np.ndarray, members: list[int]) -> dict:
    """A group for the JSON: the image of most pixels first (the one to keep), and each one's
    cosine with it."""

    def pixels(i: int) -> int:
        width, height = image_size_of(paths[i])
        return width * height

    ordered = sorted(members, key=lambda i: (-pixels(i), i))
    scores = np.minimum(vectors[ordered] @ vectors[ordered[0]], 1)
    return {
        "keep": str(paths[ordered[0]]),
        "images": [
            {"path": str(paths[i]), "score": round(float(s), 6)} for i, s in zip(ordered, scores)
        ],
    }


def _sheet(described: dict) -> np.ndarray:
    images = described["images"][:24]
    captions = [f"{image['score']:.3f} {Path(image['path']).name}" for image in images]
    pictures = [picture_of(image["path"]) for image in images]
    return contact_sheet(pictures, min(4, len(images)), captions, cell=CELL)
