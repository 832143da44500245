"""The table of ``benchmarks.versus_tutorial``: from the figures of its runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

from src.core.config import to_yaml
from src.core.files import write_json, write_text

Result = dict[str, Any]
Figure = Callable[[list[Result]], float]
OURS = ("recipe", "fit", "stretch")
SIDES = (*OURS, "tutorial")


def _epochs(results: list[Result]) -> list[Result]:
    return [epoch for result in results for epoch in result["epochs"]]


def _best_epoch(result: Result) -> Result:
    return max(result["epochs"], key=lambda epoch: epoch["mAP"])


def _best(name: str) -> Figure:
    return lambda results: mean(_best_epoch(result)[name] for result in results)


def _spread(name: str) -> Figure:
    values = lambda results: [_best_epoch(result)[name] for result in results]  # noqa: E731
    return lambda results: (max(values(results)) - min(values(results))) / 2


def _last(name: str) -> Figure:
    return lambda results: mean(result["epochs"][-1][name] for result in results)


def _per_epoch(over: str, under: str, more: bool = False) -> Figure:
    """Median over the epochs of over - under (seconds), or over / under when ``more``."""
    if more:
        return lambda results: median(e[over] / e[under] for e in _epochs(results))
    return lambda results: median(e[over] - e.get(under, 0.0) for e in _epochs(results))


def _per_run(over: str, under: str) -> Figure:
    return lambda results: median(result[over] / result[under] for result in results)


RATE, CPU = _per_epoch("train_images", "train_seconds", True), "processor s an image"
# part -> what, part whose runs it is read from, figure, whether more is better
ROWS: dict[str, list[tuple[str, str, Figure, bool]]] = {
    "train": [
        ("mAP, best epoch", "train", _best("mAP"), True),
        ("mAP50, best epoch", "train", _best("mAP50"), True),
        ("mAP, half of the spread over the seeds", "train", _spread("mAP"), False),
        ("mAP50, half of the spread", "train", _spread("mAP50"), False),
        ("mAP, last epoch", "train", _last("mAP"), True),
        ("mAP50, last epoch", "train", _last("mAP50"), True),
        ("training images/s, fine-tune", "train", RATE, True),
        (f"  {CPU}", "train", _per_epoch("train_cpu", "train_images", True), False),
    ],
    "frozen": [
        ("training images/s, frozen", "frozen", RATE, True),
        (f"  {CPU}", "frozen", _per_epoch("train_cpu", "train_images", True), False),
    ],
    "eval": [
        ("evaluation, s", "train", _per_epoch("eval_seconds", ""), False),
        ("  its forward passes, s", "train", _per_epoch("forward_seconds", ""), False),
        ("  apart from them, s", "train", _per_epoch("eval_seconds", "forward_seconds"), False),
        ("  of that the metric, s", "train", _per_epoch("metric_seconds", ""), False),
        ("  processor s apart", "train", _per_epoch("eval_cpu", "forward_cpu"), False),
    ],
    "video": [
        ("video, whole pipeline, FPS", "video", _per_run("frames", "seconds"), True),
        ("video, model alone, FPS", "video", _per_run("frames", "alone_seconds"), True),
        ("  pipeline / model alone", "video", _per_run("alone_seconds", "seconds"), True),
        ("  processor s a frame", "video", _per_run("cpu", "frames"), False),
        ("  of it the model alone", "video", _per_run("alone_cpu", "frames"), False),
    ],
}
NOTES = """
Ratios: how many times better ours is (inverted where less is better). recipe: ours with the TRAIN
recipe of its dataset YAML; fit and stretch: ours with the tutorial's AdamW 1e-4, in our two ways to
{size}x{size}: fit keeps the aspect ratio (the default), stretch is what the tutorial does.
Theirs runs at a real {size}x{size} (as it ships it ignores --imgsz in the model and runs at 640).
mAP as each side reports it: ours by faster-coco-eval in original pixels, theirs by
torchmetrics/pycocotools in stretched pixels, which leaves every IoU as it is. Speeds: the median
of epochs or runs. Evaluation: from the start of the loop to the computed mAP; its forwards include
post-processing. Video: from opening the source to its last frame (ours: to the finished files).
Processor seconds are those of the main process and all its threads: on a machine that others use
too they say more than the clock.
"""


def write_table(folder: Path, options: Any, results: dict[str, Result]) -> str:
    """The table as Markdown; also written to the folder, as table.md and results.json."""
    figures: list[dict[str, Any]] = []
    for head in options.heads:
        for part in options.parts:
            for what, source, figure, more in ROWS[part]:
                row = {"head": head, "what": what, "more_is_better": more}
                for side in SIDES:
                    prefix = f"{source}-{head}-{side}-"
                    runs = _at_best_rate({n: r for n, r in results.items() if n.startswith(prefix)})
                    if runs:
                        row[side] = figure(runs)
                figures.append(row)
    text = "\n".join(_lines(figures)) + "\n" + _verdict(figures)
    text += NOTES.format(size=options.imgsz)
    write_text(folder / "table.md", text)
    settings = options.model_dump(mode="json")
    content = {"options": settings, "machine": machine(), "table": figures, "runs": results}
    write_json(folder / "results.json", content)
    write_text(folder / "options.yaml", to_yaml(options))
    return text


def _at_best_rate(runs: dict[str, Result]) -> list[Result]:
    """Of the tutorial's runs those of the learning rate with the best mAP; all of ours."""
    rates: dict[str, list[Result]] = {}
    for name, result in runs.items():
        rates.setdefault(name.partition("-lr")[2], []).append(result)
    trained = [of for of in rates.values() if "epochs" in of[0]]
    return max(trained, key=_best("mAP")) if trained else [r for of in rates.values() for r in of]


def machine() -> dict[str, Any]:
    """What the speeds depend on beside the code."""
    import torch

    return {
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        **{name: os.environ[name] for name in sorted(os.environ) if name.startswith("OMP_")},
    }


def _lines(figures: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| head | | recipe | fit | stretch | tutorial | recipe : tutorial | fit : tutorial "
        "| stretch : tutorial |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in figures:
        cells = [f"{row[side]:.3f}" if side in row else "" for side in SIDES]
        for side in OURS:
            cells.append(f"{_ratio(row, side):.2f}" if {side, "tutorial"} <= set(row) else "")
        lines.append(f"| {row['head']} | {row['what']} | {' | '.join(cells)} |")
    return lines


def _ratio(row: dict[str, Any], side: str) -> float:
    """How many times better ours is."""
    ours, theirs = row[side], row["tutorial"]
    above, below = (ours, theirs) if row["more_is_better"] else (theirs, ours)
    return above / below if below else float("nan")


def _verdict(figures: list[dict[str, Any]]) -> str:
    """Whether each of our heads is above both of theirs."""
    lines = []
    for what in ("mAP, best epoch", "mAP50, best epoch"):
        rows = [row for row in figures if row["what"] == what]
        theirs = [row["tutorial"] for row in rows if "tutorial" in row]
        for row in rows:
            for side in OURS:
                if side in row and theirs:
                    ours, best = row[side], max(theirs)
                    word = "above" if ours > best else "NOT above"
                    lines.append(
                        f"- {what}: our {row['head']} ({side}) {ours:.3f} is {word} the best of "
                        f"theirs, {best:.3f}"
                    )
    return "\n".join(["", *lines, ""]) if lines else ""
