"""Images a second of ``features extract`` beside the bare backbone on the same batches.

    python -m benchmarks.extraction --count 64 --rounds 6

Bare: ``Backbone.tokens`` on normalised float batches that lie ready in memory (on the device).
Extraction: the same pictures from their files: read, decoded, resized, batched, normalised, class
tokens brought back. The two take turns, round by round, so that other load on the machine falls
on both; the medians of the rounds are compared. CPU seconds (of all threads) are given as well.
"""

from __future__ import annotations

import logging
import statistics
import time
from pathlib import Path

import torch

from src.core.cli import parse, run
from src.core.config import option
from src.data.common.images import list_images
from src.features.extract import compute
from src.features.model import FeatureExtractor, build_feature_extractor
from src.features.reading import ImageBatch, Reader, default_workers
from src.features.settings import FeatureOptions

log = logging.getLogger(__name__)


class BenchmarkOptions(FeatureOptions):
    """Extraction against the bare backbone."""

    weights: str = option("none", flags=["--weight"], help="backbone weights")
    images: str = option("../shared/data/ants_bees/train/*/*", help="a folder or a glob")
    count: int = option(64, ge=1, help="images a round")
    rounds: int = option(5, ge=1, help="rounds of each")
    threads: int | None = option(None, ge=1, help="torch's threads (default: all cores)")


def ready_batches(
    model: FeatureExtractor, paths: list[Path], batch: int
) -> list[tuple[torch.Tensor, ImageBatch]]:
    """The batches that extraction makes, normalised and on the device."""
    reader = Reader(model.imgsz, model.resize, model.divisor, batch, 2)
    parts = reader.parts(paths, [(0, range(len(paths)))])
    batches = [part.batch for part in parts if part.batch is not None]
    return [
        (model.backbone.normalise(b.pixels.to(model.device).permute(0, 3, 1, 2)).contiguous(), b)
        for b in batches
    ]


def bare(model: FeatureExtractor, batches: list[tuple[torch.Tensor, ImageBatch]]) -> None:
    """The backbone alone."""
    on = model.dtype != torch.float32
    with torch.inference_mode(), torch.autocast(model.device.type, model.dtype, enabled=on):
        for x, _ in batches:
            model.backbone.tokens(x)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    """Measure and print."""
    options = parse(BenchmarkOptions)
    if options.threads:
        torch.set_num_threads(options.threads)
    paths = list_images(options.images)
    paths = (paths * (1 + options.count // len(paths)))[: options.count]
    model = build_feature_extractor(options, "cls")
    batches = ready_batches(model, paths, options.batch)

    def extraction() -> None:
        chunks = [(0, range(len(paths)))]
        list(compute(model, paths, chunks, batch=options.batch, workers=options.workers))

    runs = {"bare": lambda: bare(model, batches), "extraction": extraction}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(options.rounds + 1):
        for name, function in runs.items():
            start, used = time.perf_counter(), time.process_time()
            function()
            if number:  # the first round warms up
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - used)
    workers = options.workers or default_workers(model.device.type == "cuda")
    log.info(
        "%s, %dx%d %s, batch %d, %d images a round, %d rounds, %s, %d torch threads, %d readers",
        *(options.model_name, *options.imgsz, options.resize, options.batch, len(paths)),
        *(options.rounds, model.device, torch.get_num_threads(), workers),
    )
    for name in runs:
        log.info(
            "%-11s %8.2f images/s (median; best %.2f), %6.1f CPU ms an image",
            name,
            len(paths) / statistics.median(wall[name]),
            len(paths) / min(wall[name]),
            1000 * statistics.median(cpu[name]) / len(paths),
        )
    ratios = [b / e for b, e in zip(wall["bare"], wall["extraction"])]
    log.info("extraction / bare: %.1f %% (median of rounds)", 100 * statistics.median(ratios))
    return 0


if __name__ == "__main__":
    run(main)
