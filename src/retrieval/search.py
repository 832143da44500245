"""Search by image: a contact sheet for each query, and one JSON file."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.files import require_writable, resolved, write_json
from ..core.paths import output_folder
from ..data.common.images import list_images, read_image, write_image
from ..predict.images import output_names
from ..visualise.draw import contact_sheet
from .settings import SearchOptions
from .store import ImageIndex, load_index, model_for
from .vectors import forget, index_vectors

log = logging.getLogger(__name__)

CELL = 256


@dataclass(frozen=True)
class Hit:
    """An image that was found, and its cosine with the query."""

    path: str
    score: float


def search_vectors(
    index: ImageIndex, vectors: np.ndarray, k: int, without: list[str] | None = None
) -> list[list[Hit]]:
    """The k nearest of each vector [M, D], best first; without: a path that each may not find."""
    wanted = min(k + (without is not None), len(index.entries))
    if not wanted:
        return [[] for _ in vectors]
    scores, ids = index.vectors.search(vectors, wanted)
    found = []
    for row in range(len(vectors)):
        hits = [
            Hit(index.entries[int(i)].path, float(score))
            for score, i in zip(scores[row], ids[row])
            if i >= 0
        ]
        if without is not None:
            hits = [hit for hit in hits if hit.path != without[row]]
        found.append(hits[:k])
    return found


def run_search(options: SearchOptions) -> int:
    """``search``. The exit code: 0, or 1 when queries were unreadable. Raises UserError."""
    index = load_index(options.index_dir)
    if not index.entries:
        raise UserError(f"the index {options.index_dir} is empty; add images to it first")
    queries = list_images(options.input)
    out_dir = require_writable(output_folder(options.out_dir))
    model = model_for(index, options)
    work = out_dir / ".vectors.part"
    found = index_vectors(model, queries, work, options)
    if found is None:
        return 0
    own = None if options.include_self else list(resolved(found.paths))
    began = time.perf_counter()
    results = search_vectors(index, found.vectors, options.k, own)
    log.info(
        "%d queries in %d images: %.2f ms each, without the backbone",
        *(len(results), len(index.entries), 1000 * (time.perf_counter() - began) / len(results)),
    )
    for path, name, hits in zip(found.paths, output_names(found.paths), results):
        picture = out_dir / f"{Path(name).stem}.jpg"
        write_image(picture, result_sheet(path, hits, options.columns), 85)
        for hit in hits[:5] if len(results) == 1 else []:
            log.info("  %.4f  %s", hit.score, hit.path)
    write_json(out_dir / "results.json", _content(found.paths, results))
    forget(work)
    log.info("results are in %s: results.json and a contact sheet for each query", out_dir)
    return 1 if found.faults else 0


def _content(queries: list[Path], results: list[list[Hit]]) -> list[dict]:
    return [
        {
            "query": str(path),
            "results": [
                {"rank": rank, "path": hit.path, "score": round(hit.score, 6)}
                for rank, hit in enumerate(hits, 1)
            ],
        }
        for path, hits in zip(queries, results)
    ]


def picture_of(path: str | Path) -> np.ndarray:
    """The image, or a grey tile when its file is gone."""
    try:
        return read_image(path)
    except UserError as error:
        log.warning("%s", error)
        return np.full((CELL, CELL, 3), 160, np.uint8)


def result_sheet(query: Path, hits: list[Hit], columns: int) -> np.ndarray:
    """The query and what was found, with the cosines: uint8 [H, W, 3]."""
    images = [picture_of(query), *(picture_of(hit.path) for hit in hits)]
    captions = ["query", *(f"{hit.score:.3f} {Path(hit.path).name}" for hit in hits)]
    return contact_sheet(images, columns, captions, cell=CELL)
