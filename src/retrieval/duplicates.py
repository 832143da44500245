"""Groups of near-duplicate images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..core.files import require_writable, write_json
from ..core.paths import output_folder
from ..data.common.images import image_size_of, list_images, write_image
from ..features.model import build_feature_extractor
from ..visualise.draw import contact_sheet
from .index import VectorIndex, choose_kind
from .search import CELL, picture_of
from .settings import DuplicatesOptions, Kind
from .vectors import forget, index_vectors

log = logging.getLogger(__name__)

EXACT_LIMIT = 100_000
NEIGHBOURS = 32
_BLOCK = 2**23  # cosines, or numbers of candidates, that are there at once


def similar_pairs(
    vectors: np.ndarray, threshold: float, kind: Kind | None = None
) -> Iterator[np.ndarray]:
    """Pairs of unit vectors [N, D] with a cosine of at least ``threshold``: blocks int64 [K, 2] of
    rows i < j.

    Every pair up to 100 000 vectors; beyond (or with a ``kind`` of index) the pairs among each
    one's 32 nearest by an index, by their own cosines whatever the index stores.
    """
    count = len(vectors)
    if count > EXACT_LIMIT or kind is not None:
        if kind is None:
            kind, why = choose_kind(*vectors.shape)
            log.info("neighbours by an index, %s; %s", kind, why)
        index = VectorIndex.build(kind, vectors, np.arange(count))
        block = max(1, _BLOCK // (NEIGHBOURS * vectors.shape[1]))
        for start in range(0, count, block):
            some = vectors[start : start + block]
            rows = np.arange(start, start + len(some))[:, None]
            _, ids = index.search(some, min(NEIGHBOURS, count))
            scores = np.einsum("nd,nkd->nk", some, vectors[ids.clip(0)])
            alike = (scores >= threshold - 1e-6) & (ids >= 0) & (ids != rows)
            found = np.stack([np.broadcast_to(rows, ids.shape)[alike], ids[alike]], axis=1)
            yield np.unique(np.sort(found, axis=1), axis=0)
        return
    block = max(1, min(2048, _BLOCK // max(1, count)))
    for start in range(0, count, block):
        scores = vectors[start : start + block] @ vectors[start:].T
        yield start + np.argwhere(np.triu(scores >= threshold - 1e-6, 1))


def group(count: int, pairs: Iterable[np.ndarray]) -> list[list[int]]:
    """Connected groups of two or more, the largest first: two of a group may be linked only
    through a third. pairs: blocks [K, 2]."""
    labels = np.arange(count)
    for block in pairs:
        if len(block):
            ends = labels[block]
            links = coo_matrix((np.ones(len(ends), bool), tuple(ends.T)), shape=(count, count))
            labels = connected_components(links, directed=False)[1][labels]
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    several = [found.tolist() for found in members if len(found) > 1]
    return sorted(several, key=lambda m: (-len(m), m[0]))


def cosine_spread(vectors: np.ndarray, pairs: int = 10_000) -> dict[str, float]:
    """5 %, 50 % and 95 % of the cosines of random pairs of different rows [N, D], N >= 2."""
    rng = np.random.default_rng(0)
    first = rng.integers(len(vectors), size=pairs)
    second = (first + rng.integers(1, len(vectors), size=pairs)) % len(vectors)
    cosines = np.einsum("nd,nd->n", vectors[first], vectors[second])
    return {f"{q}%": round(float(np.percentile(cosines, q)), 6) for q in (5, 50, 95)}


def tell_spread(spread: dict[str, float], groups: list[list[int]], count: int) -> None:
    """Say how far the pictures are apart, and when that is too little to believe the groups."""
    shown = ", ".join(f"{name} {value:.4f}" for name, value in spread.items())
    log.info("cosines of random pairs of pictures: %s", shown)
    if groups and len(groups[0]) > count / 2:
        log.warning(
            "%d of %d pictures are one group: unless they are all alike, these features cannot "
            "tell pictures apart (random weights cannot): raise --threshold well above the 95%% "
            "there, or give trained --weights",
            *(len(groups[0]), count),
        )


def run_duplicates(options: DuplicatesOptions) -> int:
    """``duplicates``. The exit code: 0, or 1 when images were unreadable. Raises UserError."""
    paths = list_images(options.input)
    out_dir = require_writable(output_folder(options.out_dir))
    work = out_dir / ".vectors.part"
    model = build_feature_extractor(options, options.what, unit=True)
    found = index_vectors(model, paths, work, options)
    if found is None:
        return 0
    groups = group(len(found.paths), similar_pairs(found.vectors, options.threshold))
    spread = cosine_spread(found.vectors) if len(found.paths) > 1 else {}
    tell_spread(spread, groups, len(found.paths))
    content = [_describe(found.paths, found.vectors, members) for members in groups]
    for number, described in enumerate(content[: options.sheets], 1):
        write_image(out_dir / f"group_{number:03}.jpg", _sheet(described), 85)
    header = {"threshold": options.threshold, "images": len(found.paths), "cosines": spread}
    header["faults"] = found.faults
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
