"""``train``: a plain, fused or distilled YOLO, by ultralytics' own trainer."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from ultralytics import YOLO
from ultralytics.cfg import get_cfg

from ...core.config import to_yaml
from ...core.errors import UserError
from ...core.files import require_writable, write_text
from ...core.paths import output_folder
from .data import data_yaml
from .dino import FrozenDino, lasting_name
from .graph import fused_graph, plain_graph
from .model import BEST, LAST, device_argument, open_yolo
from .settings import TrainYolo
from .trainer import FusionTrainer

log = logging.getLogger(__name__)


def train_yolo(options: TrainYolo, data: Path | None = None, **further: Any) -> FusionTrainer:
    """Train as the options say; the trainer, whose ``metrics`` are ultralytics' figures of best.pt.

    data: a data.yaml that is there already; further: arguments of ultralytics. UserError.
    """
    folder = output_folder(options.out_dir)
    _claim(folder, options)
    arguments = {**ultralytics_arguments(options), **further}
    if options.resume:
        log.info("going on with %s, by its own options", folder / LAST)
        yolo = open_yolo(folder / LAST)
        arguments = {"resume": str(folder / LAST), "device": arguments["device"]}
    else:
        splits: tuple[Any, ...] = ("train", "valid")
        data = data or data_yaml(options.config, folder / "data", options.data_root, splits)
        yolo = YOLO(str(write_graph(options, folder)), task="detect")
        if options.init is not None:
            open_yolo(options.init)  # or a message that says what is wrong with it
            arguments["pretrained"] = str(options.init)
        arguments |= {"project": str(folder.resolve()), "name": "train", "exist_ok": True}
        write_text(folder / "config.yaml", to_yaml(options))
    try:
        yolo.train(trainer=FusionTrainer, data=str((data or folder / "data/data.yaml").resolve()),
                   **arguments)  # fmt: skip
    except torch.OutOfMemoryError:
        raise UserError("the GPU is out of memory; lower --batch or --imgsz") from None
    except AssertionError as error:  # of a run that is finished, with --resume
        raise UserError(str(error)) from None
    log.info("best.pt is %s", folder / BEST)
    return yolo.trainer


def write_graph(options: TrainYolo, folder: Path) -> Path:
    """The graph that the options ask for, as a YAML whose name tells ultralytics the scale."""
    dino: dict[str, Any] = {}
    if options.context != "none" or options.distill:
        dino["name"] = options.model_name
        dino["weights"] = lasting_name(options.model_name, options.weights)
        FrozenDino(**dino).load(torch.device("cpu"))  # a fault of it is told before anything else
    if options.context == "none":
        graph = plain_graph(options.yolo)
        if options.distill:
            graph["distill"] = {**dino, "weight": options.distill}
    else:
        settings = {**dino, "context": options.context, "control": options.control}
        graph = fused_graph(options.yolo, settings)
    graph["yolo"] = options.yolo
    path = folder / f"{options.yolo}-dino.yaml"
    write_text(path, yaml.safe_dump(graph, sort_keys=False))
    return path


def ultralytics_arguments(options: TrainYolo) -> dict[str, Any]:
    """The options by ultralytics' names; mixed precision on GPUs alone. UserError."""
    device = device_argument(options.device)
    if options.batch % len(device.split(",")):
        raise UserError(f"--batch {options.batch} cannot be shared by the GPUs {device} equally")
    arguments = {
        "epochs": options.epochs,
        "imgsz": options.imgsz,
        "batch": options.batch,
        "workers": options.workers,
        "seed": options.seed,
        "device": device,
        "amp": _mixed_precision(device),
        **({} if options.mosaic else {"mosaic": 0.0}),
        "close_mosaic": min(10, options.epochs // 4),  # 10 would be all of a short training
        **{name: yaml.safe_load(value) for name, value in (w.split("=", 1) for w in options.set)},
    }
    try:
        get_cfg(overrides=arguments)
    except (SyntaxError, TypeError, ValueError) as error:
        raise UserError(f"ultralytics does not take these options: {error}") from None
    return arguments


def _mixed_precision(device: str) -> str | bool:
    """bf16 on GPUs that have it. fp16 is for ``--set amp=True``: ultralytics would fetch a network
    to try it with."""
    if device == "cpu" or not torch.cuda.is_bf16_supported(including_emulation=False):
        return False
    return "bf16"


def _claim(folder: Path, options: TrainYolo) -> None:
    there = (folder / LAST).is_file()
    if options.resume and options.overwrite:
        raise UserError("--resume goes on with a run and --overwrite replaces it: give one of them")
    if options.resume and not there:
        raise UserError(f"--resume: {folder} holds no run ({LAST})")
    if there and not (options.resume or options.overwrite):
        raise UserError(
            f"{folder} holds an earlier run: choose another --out-dir, or go on with it "
            "(--resume), or replace it (--overwrite)"
        )
    require_writable(folder)
    if options.overwrite:
        shutil.rmtree(folder / "train", ignore_errors=True)
