"""Index kinds on vectors drawn at random around centres: build, size, speed, recall@10.

    nice -n 19 python -m benchmarks.retrieval --out docs/benchmarks_retrieval.md

Vectors: unit vectors of ``--dim`` numbers, each a random centre plus normal noise (a cosine of
about 0.7 with its centre); queries are drawn like them and are not in the index. The truth is brute
force in float32. Speed: all queries in one call, and one at a time.
"""

from __future__ import annotations

import logging
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from src.core.cli import parse, run
from src.core.config import CommandSettings, option
from src.core.files import write_text
from src.retrieval.index import VectorIndex, choose_kind, require_faiss
from src.retrieval.settings import Kind

log = logging.getLogger(__name__)


class BenchmarkOptions(CommandSettings):
    """Index kinds on random vectors."""

    count: int = option(1_000_000, ge=1000, help="vectors")
    dim: int = option(384, ge=8, help="numbers a vector")
    centres: int = option(10_000, ge=1, help="centres that they are drawn around")
    queries: int = option(500, ge=1, help="queries")
    kinds: list[Kind] = option(["flat", "ivf", "pq", "hnsw"], help="kinds of index")
    threads: int = option(2, ge=1, help="threads")
    out: Path | None = option(None, help="Markdown file for the table")


def draw(options: BenchmarkOptions) -> tuple[np.ndarray, np.ndarray]:
    """(vectors [count, dim], queries [queries, dim]), float32 of length 1."""
    rng = np.random.default_rng(0)

    def unit(x: np.ndarray) -> np.ndarray:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x

    centres = unit(rng.standard_normal((options.centres, options.dim), np.float32))

    def around(n: int) -> np.ndarray:
        noise = rng.standard_normal((n, options.dim), np.float32)
        noise /= np.sqrt(options.dim)
        noise += centres[rng.integers(options.centres, size=n)]
        return unit(noise)

    return around(options.count), around(options.queries)


def brute_force(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """ids [M, k] of the nearest, by numpy, a part of the vectors at a time."""
    best_scores = np.full((len(queries), k), -np.inf, np.float32)
    best = np.zeros((len(queries), k), np.int64)
    for start in range(0, len(vectors), 50_000):
        scores = queries @ vectors[start : start + 50_000].T
        top = np.argpartition(-scores, k, axis=1)[:, :k]
        scores = np.concatenate([best_scores, np.take_along_axis(scores, top, 1)], 1)
        ids = np.concatenate([best, top + start], 1)
        order = np.argsort(-scores, axis=1)[:, :k]
        best_scores, best = (np.take_along_axis(x, order, 1) for x in (scores, ids))
    return best


def measure(kind: Kind, vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> list[str]:
    """One row of the table."""
    start = time.perf_counter()
    index = VectorIndex.build(kind, vectors, np.arange(len(vectors)))
    built = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.faiss"
        index.save(path)
        size = path.stat().st_size / 2**20
    start = time.perf_counter()
    _, ids = index.search(queries, 10)
    together = len(queries) / (time.perf_counter() - start)
    single = queries[:50]
    start = time.perf_counter()
    for query in single:
        index.search(query[None], 10)
    alone = len(single) / (time.perf_counter() - start)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, truth)])
    row = [kind, f"{built:.0f}", f"{size:.0f}", f"{together:.0f}", f"{alone:.0f}", f"{recall:.3f}"]
    log.info("  ".join(row))
    return row


def main() -> int:
    """Measure, print and write."""
    options = parse(BenchmarkOptions)
    faiss = require_faiss()
    faiss.omp_set_num_threads(options.threads)
    vectors, queries = draw(options)
    start = time.perf_counter()
    truth = brute_force(vectors, queries, 10)
    brute = len(queries) / (time.perf_counter() - start)
    log.info("brute force by numpy: %.0f queries/s", brute)
    rows: list[list[str]] = []
    for kind in options.kinds:
        rows.append(measure(kind, vectors, queries, truth))
        if options.out:  # after each, so that a run that is stopped leaves what it has
            write_text(options.out, report(options, brute, rows, faiss.__version__))
    return 0


def report(options: BenchmarkOptions, brute: float, rows: list[list[str]], version: str) -> str:
    """The Markdown page."""
    load = os.getloadavg()[0]
    head = "| kind | build s | file MiB | queries/s, together | queries/s, one by one | recall@10 |"
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    kind, why = choose_kind(options.count, options.dim)
    return f"""# Index kinds, measured

{options.count:,} unit vectors of {options.dim} numbers, drawn at random around {options.centres:,}
centres (cosine about 0.7 with the centre), {options.queries} queries drawn alike, the 10 nearest;
recall@10 against brute force in float32 ({brute:.0f} queries/s by numpy, all together).

    python -m benchmarks.retrieval --count {options.count} --dim {options.dim} \\
        --centres {options.centres} --queries {options.queries} --threads {options.threads}

Machine: {os.cpu_count()} cores ({platform.machine()}), {options.threads} threads, faiss {version}.
Load average at its end: {load:.1f}. Where that is well above the threads of this run, other work
shared the cores: take the ratios, not the seconds. Sizes and recalls do not depend on it.

{head}
| --- | --- | --- | --- | --- | --- |
{table}

Of `--index auto` for this many: {kind} ({why}).
"""


if __name__ == "__main__":
    run(main)
