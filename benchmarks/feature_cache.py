"""Images a second from the second epoch on, with and without --cache-features, side by side.

    python -m benchmarks.feature_cache --images 64 --rounds 2 --tutorial /work/tut
    python -m benchmarks.feature_cache --task segmentation --images 64 --rounds 2

Each round trains the head of a frozen backbone on the same images by the same options, once
without and once with kept features (``src.X.train.train``, all of it: loading, head, optimizer);
the figure of a run is the ``images_per_second`` of its epochs from the second on (the
first of the kept one writes the features). With --tutorial, its training loop (its model, data
set, loader and SGD step, from its files; random weights through our hub) takes its turn, too
(classification alone).
"""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from src.core.cli import parse, run
from src.core.config import CommandSettings, option

if TYPE_CHECKING:
    from src.engine.history import History

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]

TUTORIAL = """
    import json, sys, time
    import torch
    root, hub, name, batch, epochs, train = sys.argv[1:7]
    sys.path.insert(0, root)
    from src.img_cls import datasets, model as models
    datasets.NUM_WORKERS = int(sys.argv[7])
    load = torch.hub.load
    torch.hub.load = lambda repo, n, source, **k: load(hub, n, source="local", pretrained=False)
    torch.manual_seed(0)
    found, _, classes = datasets.get_datasets(train, train)
    loader, _ = datasets.get_data_loaders(found, found, batch_size=int(batch))
    model = models.Dinov3Classification(num_classes=len(classes), model_name=name, repo_dir=hub)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    criterion, rates = torch.nn.CrossEntropyLoss(), []
    for _ in range(int(epochs)):
        model.train()
        start = time.perf_counter()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.item()
            loss.backward()
            optimizer.step()
        rates.append(len(found) / (time.perf_counter() - start))
    print("RATES", json.dumps(rates))
"""


class BenchmarkOptions(CommandSettings):
    """Later epochs with and without kept features."""

    task: Literal["classification", "segmentation"] = option("classification", help="task")
    data: Path | None = option(
        None, help="classification: a folder a class (default: ants_bees); segmentation: CamVid"
    )
    model_name: str = option("dinov3_vits16", help="backbone (random weights)")
    head: str = option("linear", help="head of the task")
    images: int = option(64, ge=4, help="images an epoch")
    imgsz: int = option(224, ge=16, help="side of the images")
    epochs: int = option(3, ge=2, help="epochs a run")
    rounds: int = option(2, ge=1, help="runs of each")
    batch: int = option(32, ge=1, help="images a step")
    workers: int = option(2, ge=0, help="processes that load data")
    tutorial: Path | None = option(None, help="the tutorial project, to take its turn")
    device: str = option("cpu", help="where to run (the tutorial's part: cpu alone)")
    out: Path | None = option(None, help="a JSON file for the figures")


def pick(options: BenchmarkOptions, folder: Path) -> Path:
    """Links to equally many images of each class, as an ImageFolder, or to images and masks."""
    if options.task == "segmentation":
        data = options.data or Path("../shared/data/camvid")
        for name in ("train_images", "train_masks"):
            (folder / name).mkdir(parents=True)
            for file in sorted((data / name).iterdir())[: options.images]:
                (folder / name / file.name).symlink_to(file.resolve())
        return folder
    data = options.data or Path("../shared/data/ants_bees/train")
    classes = sorted(path for path in data.iterdir() if path.is_dir())
    for path in classes:
        (folder / path.name).mkdir(parents=True)
        for image in sorted(path.iterdir())[: max(2, options.images // len(classes))]:
            (folder / path.name / image.name).symlink_to(image.resolve())
    return folder


def ours(options: BenchmarkOptions, data: Path, out: Path, cached: bool) -> list[float]:
    """images_per_second of each epoch of a run."""
    flags = [f"--model-name {options.model_name} --weights none --head {options.head}"]
    flags += [f"--imgsz {options.imgsz} --augment none --skip-check --device {options.device}"]
    flags += [f"--epochs {options.epochs} --eval-every {options.epochs + 1}"]
    flags += [f"--workers {options.workers} --batch {options.batch}"]
    flags += ["--cache-features"] if cached else []
    words = [*" ".join(flags).split(), "--out-dir", str(out), "--cache-dir", str(out / "kept")]
    history = classify(data, words) if options.task == "classification" else segment(data, words)
    return [row["images_per_second"] for row in history.rows]


def classify(data: Path, words: list[str]) -> History:
    """A run of train_classifier.py."""
    from src.classification.settings import TrainClassifier
    from src.classification.train import train

    return train(
        parse(TrainClassifier, ["--train-dir", str(data), "--valid-dir", str(data), *words])
    )


def segment(data: Path, words: list[str]) -> History:
    """A run of train_segmentation.py on CamVid."""
    from src.segmentation.settings import TrainSegmentation
    from src.segmentation.train import train

    images, masks = str(data / "train_images"), str(data / "train_masks")
    folders = ["--train-images", images, "--train-masks", masks]
    folders += ["--valid-images", images, "--valid-masks", masks]
    config = ["--config", str(ROOT / "segmentation_configs" / "camvid.yaml"), "--pictures", "0"]
    return train(parse(TrainSegmentation, [*config, *folders, *words]))


def tutorials(options: BenchmarkOptions, data: Path) -> list[float]:
    """images_per_second of each epoch of the tutorial's loop."""
    assert options.tutorial is not None
    hub = ROOT / "src" / "backbones" / "timm_hub"
    words = [
        options.tutorial.resolve(),
        hub,
        options.model_name,
        options.batch,
        options.epochs,
        data,
    ]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TUTORIAL), *map(str, words), str(options.workers)],
        capture_output=True,
        text=True,
        cwd=data.parent,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RATES ")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[0].removeprefix("RATES "))


def main() -> None:
    """The command."""
    run(lambda: compare(parse(BenchmarkOptions, prog="python -m benchmarks.feature_cache")))


def compare(options: BenchmarkOptions) -> None:
    """Run them in turn and print the medians of the epochs from the second on."""
    rates: dict[str, list[float]] = {}
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = pick(options, folder / "data")
            found = {
                "without": ours(options, data, folder / "without", False),
                "with --cache-features": ours(options, data, folder / "with", True),
            }
            if options.tutorial is not None:
                found["tutorial's loop"] = tutorials(options, data)
        for kind, epochs in found.items():
            rates.setdefault(kind, []).extend(epochs[1:])
            shown = " ".join(f"{rate:.1f}" for rate in epochs)
            log.info("round %d, %s: images/s by epoch %s", number + 1, kind, shown)
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    base = medians["with --cache-features"]
    for kind, value in medians.items():
        log.info("%-24s %10.1f images/s   the kept features are %.0fx", kind, value, base / value)
    if options.out is not None:
        from src.core.files import write_json

        write_json(options.out, {"options": options.model_dump(mode="json"), "rates": rates})


if __name__ == "__main__":
    main()
