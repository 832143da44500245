"""The first steps of the commands on a tree of a million images: seconds and memory of each.

    python -m benchmarks.scale --folder /tmp/scale [--images 1000000]

The tree is made once and kept: a few hundred real files and hard links to them, in folders of a
thousand, and a mask for each image. Each step runs in a process of its own: the seconds are those
after its imports, the memory is what its peak adds to the imports. The first line is what a plain
``os.scandir`` of the images takes, which is the least that any step has to do.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from src.core import cli
from src.core.config import CommandSettings, option
from src.core.errors import UserError

log = logging.getLogger(__name__)

FILES = 300  # real images; a file takes at most 65000 links on ext4
PER_FOLDER = 1000
SIDE = 32


class ScaleOptions(CommandSettings):
    """Seconds and memory of first steps on a tree of many images."""

    folder: Path = option(Path("/tmp/scale"), help="where the tree lies, or is made")
    images: int = option(1_000_000, ge=2000, help="images in the tree")
    steps: list[str] = option([], help="only these steps")
    one: str | None = option(None, hidden=True, help="the step that this process runs")


def tree_of(options: ScaleOptions) -> Path:
    """The tree, made where it is not: images/NNNN/N.jpg and masks/NNNN/N.png."""
    tree = options.folder / str(options.images)
    if (tree / "whole").exists():
        return tree
    import numpy as np

    from src.data.common.images import write_image
    from src.data.masks.reader import write_mask

    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for i in range(FILES):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        write_image(tree / "files" / f"{i}.jpg", pixels)
        write_mask(tree / "files" / f"{i}.png", (pixels[..., 0] > 127).astype(np.uint8))
    for first in range(0, options.images, PER_FOLDER):
        name = f"{first // PER_FOLDER:04d}"
        for kind, suffix in (("images", "jpg"), ("masks", "png"), ("valid", "jpg")):
            (tree / kind / name).mkdir(parents=True, exist_ok=True)
            count = 1 if kind == "valid" else min(PER_FOLDER, options.images - first)
            for i in range(first, first + count):
                link = tree / kind / name / f"{i}.{suffix}"
                if not link.exists():
                    os.link(tree / "files" / f"{i % FILES}.{suffix}", link)
    (tree / "whole").touch()
    log.info("made %s in %.0f s", tree, time.perf_counter() - start)
    return tree


Step = Callable[[], object]


def scandir(tree: Path) -> Step:
    """What the operating system takes."""

    def walk(folder: str) -> int:
        with os.scandir(folder) as entries:
            return sum(walk(e.path) if e.is_dir() else 1 for e in entries)

    return lambda: walk(str(tree / "images"))


def _labels(tree: Path) -> Callable[[], dict]:
    from src.classification.settings import TrainClassifier
    from src.classification.train import read_data
    from src.data.labels import reader  # noqa: F401  (imported before the clock starts)
    from src.engine import summary  # noqa: F401

    folders = ["--train-dir", str(tree / "images"), "--valid-dir", str(tree / "valid")]
    options = cli.parse(TrainClassifier, folders)
    return lambda: read_data(options).records


def doctor_classes(tree: Path) -> Step:
    """The quick check of a folder a class."""
    return _labels(tree)


def doctor_pairs(tree: Path) -> Step:
    """The quick check of images and masks in two trees."""
    from src.data.common.pairs import Folders
    from src.data.masks.reader import MaskReader, check_masks, read_mask_split
    from src.data.masks.settings import MaskDataset

    dataset = MaskDataset(RECURSIVE=True, MASK_FORMAT="index", ALL_CLASSES=["no", "yes"])

    def run() -> None:
        records, faults = read_mask_split(dataset, Folders(tree / "images", tree / "masks", None))
        assert not faults and not check_masks(records, "train", MaskReader(dataset))

    return run


def training(tree: Path) -> Step:
    """Reading the records, the quick check, and the first batch of two workers."""
    from src.core.structures import Size
    from src.data.common.loaders import split_loaders
    from src.data.labels.transforms import LabelTransform

    read, size = _labels(tree), Size(SIDE, SIDE)
    still = LabelTransform(size, "stretch", training=False)
    moving = LabelTransform(size, "stretch")

    def run() -> None:
        train, _ = split_loaders(read(), moving, still, batch=32, workers=2, seed=0)
        train.set_epoch(0)
        next(iter(train))

    return run


def extraction(tree: Path) -> Step:
    """Listing, the names of all chunks, and the features of the first one."""
    from src.data.common.images import list_images
    from src.features.chunks import ChunkStore
    from src.features.extract import compute
    from src.features.model import build_feature_extractor
    from src.features.settings import FeatureOptions

    options = FeatureOptions(model_name="dinov3_convnext_atto", weights="none", imgsz=[SIDE])
    model = build_feature_extractor(options, "cls")

    def run() -> None:
        paths = list_images(str(tree / "images" / "**" / "*.jpg"))
        store = ChunkStore(tree / "chunks", {}, paths, 256)
        next(compute(model, paths, [(0, store.ranges[0])], batch=32, workers=2))

    return run


def index(tree: Path) -> Step:
    """All but the vectors' making: entries, faiss (flat), saving, loading, and the look of ``add``
    for what is new."""
    import numpy as np

    from src.core.files import Stamp
    from src.data.common.images import list_images
    from src.features.model import Identity
    from src.retrieval.index import VectorIndex, require_faiss
    from src.retrieval.store import ImageIndex, entries_of, load_index

    require_faiss()

    def run() -> None:
        paths = list_images(str(tree / "images" / "**" / "*.jpg"))
        vectors = np.random.default_rng(0).standard_normal((len(paths), 16), np.float32)
        identity = Identity(*[None] * len(Identity.__dataclass_fields__))  # type: ignore[arg-type]
        made = ImageIndex(tree / "index", identity, {}, None)  # type: ignore[arg-type]
        ids = made.take_ids(entries_of(paths, [Stamp.of(path) for path in paths]))
        made.vectors = VectorIndex.build("flat", vectors, ids)
        made.save()
        known = {entry.path: entry for entry in load_index(tree / "index").entries.values()}
        assert all(known[entry.path] == entry for entry in entries_of(paths))

    return run


STEPS = {
    "scandir": scandir,
    "quick check, classes": doctor_classes,
    "quick check, pairs": doctor_pairs,
    "training, first batch": training,
    "extraction, first chunk": extraction,
    "index": index,
}


def _peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_step(name: str, tree: Path) -> None:
    """A step in this process; its figures on the last line of standard output."""
    step = STEPS[name](tree)
    before, start, cpu = _peak(), time.perf_counter(), time.process_time()
    step()
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps([seconds, used, _peak() - before]), flush=True)


def measure(options: ScaleOptions) -> None:
    """Log a line a step."""
    tree = tree_of(options)
    if options.one is not None:
        run_step(options.one, tree)
        return
    unknown = set(options.steps) - set(STEPS)
    if unknown:
        raise UserError(f"no step {', '.join(sorted(unknown))}; there are: {', '.join(STEPS)}")
    log.info("%d images in %d folders", options.images, len(os.listdir(tree / "images")))
    log.info("%-24s %9s %9s %9s", "step", "s", "CPU s", "MiB")
    for name in options.steps or STEPS:
        command = [sys.executable, "-m", "benchmarks.scale", "--one", name]
        command += ["--folder", str(options.folder), "--images", str(options.images)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise UserError(f"the step {name} failed")
        log.info("%-24s %9.1f %9.1f %9.0f", name, *json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    cli.run(lambda: measure(cli.parse(ScaleOptions)))
