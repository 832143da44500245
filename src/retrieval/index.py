"""Vectors with numbers (ids), searched by cosine: faiss behind one small face.

faiss: https://arxiv.org/abs/2401.08281. Kinds: flat compares with every vector (exact); ivf
with those of the nearest cells; hnsw walks a graph; pq is ivf with vectors of a byte for four
numbers.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from ..core.errors import UserError
from ..core.files import atomic_path
from .settings import Kind

log = logging.getLogger(__name__)

FLAT_LIMIT = 50_000
HNSW_LIMIT = 500_000
IVF_LIMIT = 3_000_000
HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 16, 40, 96


def require_faiss() -> Any:
    """The faiss module, or a UserError that says how to get it."""
    logging.getLogger("faiss").setLevel(logging.WARNING)
    try:
        import faiss
    except ImportError:
        raise UserError(
            "an index needs faiss, which is not installed: pip install faiss-cpu "
            "(or pip install -r requirements-extras.txt)"
        ) from None
    return faiss


def choose_kind(count: int, dim: int) -> tuple[Kind, str]:
    """The kind of index for so many vectors, and why."""
    size = count * dim * 4 / 2**20
    if count <= FLAT_LIMIT:
        return "flat", f"{count} vectors ({size:.1f} MiB) are compared exactly in milliseconds"
    if count <= HNSW_LIMIT:
        return "hnsw", (
            f"{count} vectors: a search of a graph costs hardly more as it grows, and building it "
            "takes minutes only; it cannot remove, deleted images are skipped instead"
        )
    if count <= IVF_LIMIT:
        return "ivf", (
            f"{count} vectors: cells are built faster than a graph, take images in "
            f"and let them go, and {size / 1024:.1f} GiB fit in memory"
        )
    return "pq", (
        f"{count} vectors would take {size / 1024:.1f} GiB: they are stored in a sixteenth of it, "
        "with less exact scores"
    )


def _cells(count: int) -> int:
    """Cells of an inverted file: about 2 sqrt(n), with at least 39 vectors for each to learn
    from (faiss's rule)."""
    return max(1, min(round(2 * math.sqrt(count)), count // 39))


class VectorIndex:
    """Unit vectors float32 [N, dim] under ids int64; scores are cosines.

    deleted: ids that an hnsw graph still holds and every search leaves out.
    """

    def __init__(self, kind: Kind, index: Any, deleted: set[int] | None = None) -> None:
        self.kind, self._index = kind, index
        self.deleted = set(deleted or ())
        self._faiss = require_faiss()

    @classmethod
    def build(cls, kind: Kind, vectors: np.ndarray, ids: np.ndarray) -> VectorIndex:
        """Train on the vectors where the kind needs it, and add them. Raises UserError."""
        faiss = require_faiss()
        count, dim = vectors.shape
        metric = faiss.METRIC_INNER_PRODUCT
        if kind == "flat":
            index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        elif kind == "hnsw":
            graph = faiss.IndexHNSWFlat(dim, HNSW_LINKS, metric)
            graph.hnsw.efConstruction = HNSW_BUILD
            index = faiss.IndexIDMap2(graph)
        else:
            quantizer = faiss.IndexFlatIP(dim)
            if kind == "ivf":
                index = faiss.IndexIVFFlat(quantizer, dim, _cells(count), metric)
            else:
                if count < 256:
                    raise UserError(
                        f"--index pq learns from at least 256 images, and here are {count}; "
                        "leave --index out"
                    )
                parts = dim // 4 if dim % 4 == 0 else 1
                index = faiss.IndexIVFPQ(quantizer, dim, _cells(count), parts, 8, metric)
                index.pq.cp.min_points_per_centroid = 1
            index.cp.niter = 10
            index.cp.min_points_per_centroid = 1
            index.train(_sample(vectors, max(64 * index.nlist, 65_536)))
        built = cls(kind, index)
        built.add(vectors, ids)
        return built

    def __len__(self) -> int:
        """Vectors that a search can find."""
        return int(self._index.ntotal) - len(self.deleted)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._index.d)

    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Add unit vectors [n, dim] under new ids [n]."""
        assert vectors.shape == (len(ids), self.dim)
        self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), ids.astype(np.int64))

    def remove(self, ids: np.ndarray) -> None:
        """Remove ids; hnsw keeps them, marked as deleted."""
        if self.kind == "hnsw":
            self.deleted |= {int(i) for i in ids}
        else:
            self._index.remove_ids(self._selector(ids))

    def _selector(self, ids: Any) -> Any:
        return self._faiss.IDSelectorBatch(np.fromiter(ids, np.int64))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(cosines float32 [M, k], ids int64 [M, k]) of the k nearest, best first.

        Where there are fewer than k, the rest is id -1.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        faiss, params = self._faiss, None
        if self.kind == "hnsw":
            # A wider walk through a larger graph: with 96 a million vectors had a recall of 0.69.
            chosen = {"efSearch": max(HNSW_SEARCH, 2 * k, self._index.ntotal // 2500)}
            if self.deleted:  # both selectors must outlive the search
                gone = self._selector(self.deleted)
                chosen["sel"] = faiss.IDSelectorNot(gone)
            params = faiss.SearchParametersHNSW(**chosen)
        elif self.kind in ("ivf", "pq"):
            cells = self._index.nlist
            chosen = {"nprobe": min(cells, max(16, cells // 64))}
            params = (faiss.SearchParametersIVF if self.kind == "ivf" else
                      faiss.IVFPQSearchParameters)(**chosen)  # fmt: skip
        scores, ids = self._index.search(queries, k, params=params)
        return scores, ids

    def save(self, path: Path) -> None:
        """Write faiss's file atomically. Raises UserError (full disk)."""
        with atomic_path(path) as temporary:
            try:
                self._faiss.write_index(self._index, str(temporary))
            except RuntimeError as error:
                raise OSError(str(error).splitlines()[-1]) from None

    @classmethod
    def load(cls, path: Path, kind: str, deleted: set[int]) -> VectorIndex:
        """Read what ``save`` wrote. UserError when it cannot be."""
        faiss = require_faiss()
        assert kind in get_args(Kind)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError:  # faiss names lines of its source
            raise UserError(
                f"{path} cannot be read as an index (cut short, or another kind of file); build "
                "the index again"
            ) from None
        return cls(cast(Kind, kind), index, deleted)


def _sample(vectors: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of the vectors, the same ones each time."""
    if len(vectors) <= count:
        return np.ascontiguousarray(vectors, np.float32)
    rows = np.random.default_rng(0).choice(len(vectors), count, replace=False)
    return np.ascontiguousarray(vectors[np.sort(rows)], np.float32)
