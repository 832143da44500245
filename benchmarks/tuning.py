"""A backbone frozen, with adapters, with its last blocks trained, and trained as a whole.

    python -m benchmarks.tuning --data-root ../shared/data

On BCCD (detection) and CamVid (segmentation), the same backbone and recipe for each way, seeds in
turn. Published weights are not needed: for each data set the backbone is trained first, with all of
it and a head that is thrown away, on images that the table does not use. So it knows this data,
which is kind to ``frozen``; a general backbone would know more, and of other things. Each run is
the real command in a process of its own: processor seconds and the peak of its memory are the
system's figures of that process (libraries and data among them). Runs that are there are not
repeated.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import yaml

from src.core.cli import parse, run
from src.core.config import CommandSettings, load_yaml, option
from src.core.files import write_json, write_text
from src.core.paths import output_folder
from src.engine.checkpoint import load_checkpoint

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
WAYS = {
    "frozen": ["--tune", "frozen"],
    "lora": ["--tune", "lora"],
    "last 2": ["--tune", "last", "2", "--backbone-lr", "1e-4"],
    "all": ["--tune", "all", "--backbone-lr", "1e-4"],
}
COMMON = ["--lr", "1e-3", "--batch", "8", "--schedule", "cosine", "--warmup-epochs", "0.5"]
COMMON += ["--clip", "5", "--ema", "0", "--workers", "0", "--augment", "flip", "--device", "cpu"]
COMMON += ["--weight-decay", "0.05", "--eval-every", "1000", "--logger", "none", "--skip-check"]
METRICS = {"bccd": "mAP50", "camvid": "mIoU"}
COLUMNS = "trained of the backbone | processor s | peak MiB"


class TuningOptions(CommandSettings):
    """Quality and cost of each way to tune a backbone."""

    data_root: Path = option(Path("../shared/data"), help="folder with bccd/ and camvid/")
    data: list[Literal["bccd", "camvid"]] = option(list(METRICS), help="data sets")
    model_name: str = option("dinov3_vitt16", help="backbone")
    imgsz: list[int] = option([160, 128], help="width and height")
    images: int = option(120, ge=8, help="training images of the table")
    epochs: int = option(5, ge=1, help="epochs of each run")
    first_epochs: int = option(10, ge=1, help="epochs that the backbone is trained for before")
    seeds: list[int] = option([0, 1, 2], help="seeds")
    out_dir: Path = option(Path("tuning"), help="sub-folder of outputs/")


def split_of(options: TuningOptions, data: str, folder: Path, part: str) -> list[str]:
    """The flags of a part of the data ('first': for the backbone, 'table'), and of its task."""
    root = (options.data_root / data).resolve()
    start, stop = (0, 120) if part == "first" else (120, 120 + options.images)
    if data == "bccd":
        names = (root / "ImageSets/Main/trainval.txt").read_text().split()[start:stop]
        write_text(folder / f"{part}.txt", "\n".join(names) + "\n")
        content = load_yaml(ROOT / "detection_configs/bccd.yaml")
        content |= {"TRAIN": {}, "TRAIN_SPLIT": str(folder / f"{part}.txt")}
        write_text(folder / f"{part}.yaml", yaml.safe_dump(content))
        split = ["train_detection.py", "--config", str(folder / f"{part}.yaml")]
        return [*split, "--data-root", str(root), "--head", "ssd", "--pyramid-channels", "64"]
    for kind in ("images", "masks"):
        target = folder / f"{part}_{kind}"
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted((root / f"train_{kind}").iterdir())[start:stop]:
            if not (target / path.name).exists():
                (target / path.name).symlink_to(path)
    split = ["train_segmentation.py", "--config", "segmentation_configs/camvid.yaml"]
    return [*split, "--data-root", str(root), "--train-images", str(folder / f"{part}_images"),
            "--train-masks", str(folder / f"{part}_masks"), "--head", "fpn",
            "--head-channels", "64", "--pictures", "0"]  # fmt: skip


def measure(words: list[str], out: Path) -> dict[str, Any]:
    """A training's last metrics, processor seconds and peak MiB; kept in its folder."""
    kept = out / "measured.json"
    if kept.exists():
        return json.loads(kept.read_text())
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *words, *COMMON, "--out-dir", str(out), "--overwrite"]
    with (out.parent / f"{out.name}.log").open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed: see {out}.log")
    with (out / "history.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    found = {
        "metrics": {name: float(value) for name, value in row.items() if value},
        "seconds": usage.ru_utime + usage.ru_stime,
        "mib": usage.ru_maxrss / 1024,
    }
    write_json(kept, found)
    return found


def trained_of(out: Path) -> int:
    """Parameters of the backbone that the optimizer of a run has."""
    content = load_checkpoint(out / "last_model.pth")
    names = [name for name in content["training"]["optimizer"] if name.startswith("backbone.")]
    return sum(content["model"][name].numel() for name in names)


def backbone_file(options: TuningOptions, data: str, folder: Path) -> Path:
    """The backbone that all ways start from."""
    import torch

    file = folder / "backbone.pth"
    if not file.exists():
        words = split_of(options, data, folder, "first")
        words += ["--weights", "none", "--tune", "all", "--epochs", str(options.first_epochs)]
        measure([*words, *shared(options)], folder / "first")
        content, inner = load_checkpoint(folder / "first" / "best_model.pth"), "backbone.hub_model."
        state = {k.removeprefix(inner): v for k, v in content["model"].items() if inner in k}
        torch.save(state, file)
    return file


def shared(options: TuningOptions) -> list[str]:
    """Flags of every run."""
    return ["--model-name", options.model_name, "--imgsz", *map(str, options.imgsz)]


def table(options: TuningOptions) -> str:
    """Train what is not there yet; Markdown: a row a way of each data set."""
    lines = [f"| | quality, seeds {options.seeds} | {COLUMNS} |", "| --- | --- | --: | --: | --: |"]
    for data in options.data:
        folder = output_folder(options.out_dir).resolve() / data
        weights = backbone_file(options, data, folder)
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for seed in options.seeds:
            for way, flags in WAYS.items():
                words = [*split_of(options, data, folder, "table"), *shared(options), *flags]
                words += ["--weights", str(weights), "--epochs", str(options.epochs)]
                out = folder / f"{way.replace(' ', '-')}-{seed}"
                found[way].append(measure([*words, "--seed", str(seed)], out))
                log.info("%s, %s, seed %d: %s", data, way, seed, found[way][-1])
        for way, runs in found.items():
            values = [one["metrics"][METRICS[data]] for one in runs]
            each = f"{statistics.mean(values):.3f} ({', '.join(f'{v:.3f}' for v in values)})"
            seconds, mib = (statistics.median(one[k] for one in runs) for k in ("seconds", "mib"))
            count = trained_of(folder / f"{way.replace(' ', '-')}-{options.seeds[0]}")
            lines.append(
                f"| {data}, `--tune {way}` | {METRICS[data]} {each} | {count:,} | "
                f"{seconds:.0f} | {mib:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Print the table and keep it."""
    options = parse(TuningOptions, None, "python -m benchmarks.tuning")
    text = table(options)
    print(text)
    write_text(output_folder(options.out_dir) / "table.md", text + "\n")


if __name__ == "__main__":
    run(main)
