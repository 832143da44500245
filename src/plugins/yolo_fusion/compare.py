"""``compare``: the same training with and without DINO, its controls, and what the papers say."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

from ...backbones.catalog import CATALOG
from ...core.errors import UserError
from ...core.files import write_json, write_text
from ...core.paths import output_folder
from ...visualise.plots import plot_paired
from .data import data_yaml
from .model import BEST, open_yolo, torch_device
from .settings import SETTINGS, CompareYolo, TrainingRecipe, TrainYolo
from .train import train_yolo

log = logging.getLogger(__name__)
FIGURES = {"mAP50": "metrics/mAP50(B)", "mAP50-95": "metrics/mAP50-95(B)",
           "precision": "metrics/precision(B)", "recall": "metrics/recall(B)"}  # fmt: skip
CONTROLS = ("global", "zeroed", "shuffled")
ROUNDS = 15  # of the networks' timing, in turn
CLAIMS = """
What others report, none of it measured here:

| source | claim | gaps |
| --- | --- | --- |
| [YOLOv8 + DINOv2](https://www.yashkumarsahu.com/blogs/yolo-plus-dino.html), SODA-D, YOLOv8n, \
25 epochs, batch 16, 5017 images | mAP50 .271 -> .434, recall .303 -> .420 | one run each; image \
size, seeds and speed unstated; the code cannot run as printed; no control |
| [DINO-YOLO](https://arxiv.org/abs/2510.25140), YOLOv12 + DINOv3 | +12.4 % (648 images of \
cracks), +13.7 % (1000 of protective equipment), +88.6 % (KITTI) | relative gains; two to four \
times the inference time (21-33 ms for 8-16 ms, RTX 5090); no control of the context |
| a controlled test of distillation into a YOLO | mAP .4730 -> .4768 | not significant |
"""


def compare_yolo(options: CompareYolo) -> dict[str, Any]:
    """Train every setting with every seed, setting after setting within a seed, and write
    results.json, table.md and a plot of pairs for each kind of augmentation. UserError.

    The figures are ultralytics' own, of the last epoch's average (no epoch is chosen by them).
    """
    if "," in options.device:
        raise UserError("compare trains on one device: its clocks are those of one process")
    folder = output_folder(options.out_dir)
    data = folder / "data/data.yaml"
    data_yaml(options.config, data.parent, options.data_root, ("train", "valid"))
    kinds = {"on": [True], "off": [False], "both": [True, False]}[options.mosaic]
    found: dict[str, Any] = {}
    for mosaic in kinds:
        kind = "mosaic" if mosaic else "no mosaic"
        for seed in options.seeds:
            for name in options.settings:
                run = folder / "runs" / f"{name}{'' if mosaic else '_no_mosaic'}_{seed}"
                result = _trained(options, run, name, seed, mosaic, data)
                found.setdefault(kind, {}).setdefault(name, {})[seed] = result
    times = _inference_ms(options, found[next(iter(found))])
    rows = {kind: _rows(options, of_kind, times) for kind, of_kind in found.items()}
    results = {"options": options.model_dump(mode="json"), "runs": found, "rows": rows}
    write_json(folder / "results.json", results)
    text = _table(options, rows)
    write_text(folder / "table.md", text)
    for kind, of_kind in found.items():
        values = {name: [run["mAP50"] for run in runs.values()] for name, runs in of_kind.items()}
        path = folder / f"paired_{kind.replace(' ', '_')}.png"
        plot_paired(values, path, f"{options.yolo}, {kind}: a line a seed", "mAP50")
    log.info("%s\ntable.md, results.json and the plots are in %s", text, folder)
    return results


def _trained(
    options: CompareYolo, folder: Path, name: str, seed: int, mosaic: bool, data: Path
) -> dict[str, Any]:
    """The figures of one run: those of its result.json, if it was trained by the same options."""
    shared = {key: getattr(options, key) for key in TrainingRecipe.model_fields if key != "dataset"}
    chosen = {**SETTINGS[name], "seed": seed, "mosaic": mosaic, "overwrite": True}
    training = TrainYolo(**shared, **chosen, out_dir=folder.resolve())
    told = json.loads(training.model_dump_json(exclude={"out_dir"}))
    file = folder / "result.json"
    if file.is_file() and (before := json.loads(file.read_text()))["options"] == told:
        return before["result"]
    log.info("compare: %s, seed %d%s", name, seed, "" if mosaic else ", no mosaic")
    trainer = train_yolo(training, data, val=False)
    metrics: Any = trainer.metrics
    result = {key: float(metrics[theirs]) for key, theirs in FIGURES.items()}
    network = open_yolo(folder).model
    result["parameters"] = sum(value.numel() for value in network.parameters())
    result["train_ms"] = trainer.train_ms
    write_json(file, {"options": told, "result": result})
    return result


def _inference_ms(options: CompareYolo, found: dict[str, Any]) -> dict[str, float]:
    """Median milliseconds of one image by each setting's network (fused layers, DINO included),
    in turn: of the processor on a CPU, of the clock on a GPU."""
    device = torch_device(options.device)
    folder = output_folder(options.out_dir) / "runs"
    mosaic = options.mosaic != "off"
    networks = {}
    for name, runs in found.items():
        run = f"{name}{'' if mosaic else '_no_mosaic'}_{next(iter(runs))}"
        network = open_yolo(folder / run / BEST).model.float().fuse(verbose=False)
        networks[name] = network.eval().to(device)
    image = torch.rand(1, 3, options.imgsz, options.imgsz, device=device)
    taken: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for turn in range(ROUNDS + 2):
            for name, network in networks.items():
                start = _now(device)
                network(image)
                if turn > 1:  # the first ones warm up
                    taken[name].append(1000 * (_now(device) - start))
    return {name: median(values) for name, values in taken.items()}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def _rows(
    options: CompareYolo, found: dict[str, Any], times: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """setting -> mean and spread of each figure, differences to plain (seed by seed), costs."""
    rows: dict[str, dict[str, Any]] = {}
    for name, runs in found.items():
        row: dict[str, Any] = {key: _spread([run[key] for run in runs.values()]) for key in FIGURES}
        if "plain" in found and name != "plain":
            pairs = [run["mAP50"] - found["plain"][seed]["mAP50"] for seed, run in runs.items()]
            row["to plain"] = _spread(pairs)
        fused = SETTINGS[name]["context"] != "none"
        millions = next(iter(runs.values()))["parameters"] / 1e6
        dino = CATALOG[options.model_name].parameters if fused else 0.0
        row |= {"parameters": millions, "with DINO": millions + dino}
        row |= {"train ms": mean(run["train_ms"] for run in runs.values()), "ms": times[name]}
        rows[name] = row
    return rows


def _spread(values: list[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (of the sample; None of a single value)."""
    return mean(values), stdev(values) if len(values) > 1 else None


def _table(options: CompareYolo, rows: dict[str, Any]) -> str:
    """Markdown."""
    kind = "processor" if torch_device(options.device).type == "cpu" else "clock"
    weights = "RANDOM" if options.weights == "none" else options.weights
    lines = [
        f"{options.yolo}, {options.model_name} with {weights} weights, {options.config.name}, "
        f"{options.imgsz} pixels, {options.epochs} epochs, batch {options.batch}, seeds "
        f"{' '.join(map(str, options.seeds))}; mean and standard deviation over the seeds, "
        f"'to plain' over the pairs of a seed; ms an image by the {kind}."
    ]
    columns = [
        *FIGURES,
        "mAP50 to plain",
        "trained M",
        "with DINO M",
        "training ms",
        "inference ms",
    ]
    for name, of_kind in rows.items():
        lines += ["", f"| {name} | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
        for setting, row in of_kind.items():
            cells = [_cell(row[key]) for key in FIGURES]
            cells.append(_cell(row["to plain"], "+") if "to plain" in row else "")
            cells += [f"{row['parameters']:.2f}", f"{row['with DINO']:.2f}"]
            cells += [f"{row['train ms']:.1f}", f"{row['ms']:.1f}"]
            lines.append(f"| {setting} | {' | '.join(cells)} |")
        if all(control in of_kind for control in CONTROLS):
            means = [of_kind[control]["mAP50"][0] for control in CONTROLS]
            spreads = [of_kind[control]["mAP50"][1] or 0.0 for control in CONTROLS]
            lines += ["", f"{', '.join(CONTROLS)}: their means of mAP50 lie within "
                      f"{max(means) - min(means):.3f}, their spreads are "
                      f"{', '.join(f'{s:.3f}' for s in spreads)}."]  # fmt: skip
    return "\n".join(lines) + "\n" + CLAIMS


def _cell(pair: tuple[float, float | None], sign: str = "") -> str:
    value, spread = pair
    return f"{value:{sign}.3f}" + ("" if spread is None else f" ± {spread:.3f}")
