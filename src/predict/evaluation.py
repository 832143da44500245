"""What evaluating a checkpoint takes, whatever its task: the data, the folder, the arithmetic."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..core.config import Settings, load_yaml, validate
from ..core.errors import UserError
from ..core.files import require_writable, write_text
from ..core.paths import output_folder
from ..data.common.loaders import Canvas
from ..data.common.shapes import fix_shapes
from ..engine import precision
from ..engine.precision import choose_device
from .restore import Trained, make_ready, resize_of
from .settings import EvaluationOptions

D = TypeVar("D", bound=Settings)
RESULTS = "results.json"
IMAGES = "images.csv"
Rows = dict[int, dict[str, Any]]  # by position in the record list: column -> value of an image


def claim_folder(options: EvaluationOptions) -> Path:
    """The folder of the results; UserError when it holds others (and no --overwrite)."""
    folder = output_folder(options.out_dir)
    if (folder / RESULTS).exists() and not options.overwrite:
        raise UserError(
            f"{folder} holds an earlier evaluation ({RESULTS}): choose another --out-dir, or "
            "replace it (--overwrite)"
        )
    return require_writable(folder)


def write_rows(folder: Path, paths: Sequence[Path], rows: Rows) -> None:
    """images.csv: truth, prediction or figures of each image; paths: of all records, in order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, index in enumerate(sorted(rows)):
        if number == 0:
            writer.writerow(["image", *rows[index]])
        values = [f"{v:.6g}" if isinstance(v, float) else v for v in rows[index].values()]
        writer.writerow([paths[index], *("" if value == "nan" else value for value in values)])
    write_text(folder / IMAGES, text.getvalue())


def worst_of(rows: Rows, figure: str, *, high: bool = False, most: int = 12) -> list[int]:
    """Positions of the images whose figure is the lowest (high: the highest), the worst first;
    those without the figure are left out."""
    told = {i: row[figure] for i, row in rows.items() if row.get(figure) is not None}
    known = [i for i, value in told.items() if value == value]  # no nan
    return sorted(known, key=told.__getitem__, reverse=high)[:most]


@dataclass
class SplitSource:
    """Where the split lies that is evaluated. dataset: the dataset part of the YAML; data_root,
    folders: of the flags, else of the run whose configuration it is; where: the file, in words."""

    dataset: Any
    where: str
    data_root: Path | None
    folders: list[Path | None]


def source_of(
    options: EvaluationOptions, trained: Trained, kind: type[D], kinds: tuple[str, ...]
) -> SplitSource:
    """The data set that the options name: a dataset YAML, the config.yaml of a run, or (without
    --config) the run that the checkpoint comes from.

    kind: of the dataset; kinds: those of its folders, as in the flags --SPLIT-KIND. UserError for
    mistakes in the file and for classes that are not the checkpoint's.
    """
    content: Mapping[str, Any] = trained.checkpoint["config"]
    where = f"the run of {options.model}"
    if options.config is not None:
        content, where = load_yaml(options.config), str(options.config)
    run: Mapping[str, Any] = {}
    if isinstance(content.get("dataset"), Mapping):  # of a run: flags, and the dataset among them
        run, content = content, content["dataset"]
    content = {k: v for k, v in content.items() if k != "TRAIN"}
    content = kind.from_yaml(content, options.config or Path())
    dataset = validate(kind, content, where)
    root = options.data_root
    folders = []
    for name in kinds:  # a --data-root of today goes before folders of then
        flag = f"{options.split}_{name}"
        then = None if root else run.get(flag)
        folders.append(getattr(options, flag) or (Path(then) if then else None))
    if root is None and run.get("data_root") is not None:
        root = Path(run["data_root"])
    return SplitSource(dataset, where, root, folders)


def check_classes(found: list[str], trained: Trained, where: str) -> None:
    """UserError when the data's classes are not the checkpoint's."""
    if found == trained.names:
        return
    said = [", ".join(n for n in some if n != "__background__") for some in (found, trained.names)]
    raise UserError(
        f"{where} has the classes {said[0]}, and the checkpoint was trained on {said[1]}: give a "
        "--config whose classes are these, in this order"
    )


@contextmanager
def evaluation_device(options: EvaluationOptions, trained: Trained) -> Iterator[torch.device]:
    """The device that the options name, with their precision in force on it, and the model there
    in that precision."""
    make_ready(trained, options)
    device = choose_device(options.device)
    backbone = trained.checkpoint["backbone"]["name"]
    dtype = precision.choose_type(options.precision, device, backbone)
    precision.lower_weights(trained.model.to(device), dtype)
    with precision.arithmetic(dtype, device):
        yield device


def canvas_of(options: EvaluationOptions, trained: Trained) -> Canvas:
    """What the model pads an image to, so that batches are of images of one canvas."""
    model = trained.model
    fix_shapes(
        model, trained.image_size, resize_of(options, trained), choose_device(options.device)
    )
    return model.canvas


def header(
    options: EvaluationOptions, trained: Trained, found: SplitSource, images: int, **more: Any
) -> dict[str, Any]:
    """What was evaluated, on what; more: where the data were found, and how it looked at them."""
    return {
        "model": str(options.model),
        "data": found.where,
        "split": options.split,
        "images": images,
        "image_size": list(trained.image_size),
        "resize": resize_of(options, trained),
        "precision": options.precision,
        **more,
    }
