"""Options of every inference command (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..core.config import CommandSettings, Sides, option


class PredictOptions(CommandSettings):
    """Inference."""

    model: Path = option(..., flags=["-m"], help="checkpoint of a training run: best_model.pth")
    input: str = option(..., flags=["-i"], help="what to run on: a file, a folder or a glob")
    out_dir: Path = option(..., help="sub-folder of outputs/ for the results")
    imgsz: Sides | None = option(
        None, help="width and height of the model's input (one number: both); default: training's"
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where to run")
    precision: Literal["auto", "32", "16", "bf16"] = option(
        "auto", help="arithmetic; auto = 16 on CUDA, 32 on the CPU"
    )
    batch: int = option(4, ge=1, help="images the model takes at once")
    show: bool = option(False, help="show each result in a window")


class VideoOptions(PredictOptions):
    """Inference on a video."""

    input: str = option(
        ..., flags=["-i"], help="a video file, a camera index (0), or an rtsp:// or http:// address"
    )
    max_frames: int | None = option(None, ge=1, help="stop after this many frames")


class KnownOptions(CommandSettings):
    """Checked against the checkpoint (it knows them; the tutorial's commands give them)."""

    model_name: str | None = option(None, help="backbone that the checkpoint must have")
    head: str | None = option(None, help="head that the checkpoint must have")
    config: Path | None = option(None, help="dataset YAML whose classes the checkpoint must have")
    repo_dir: Path | None = option(None, hidden=True, help="not needed")


class IdentityOptions(KnownOptions):
    """Checked against the checkpoint (it knows them; the tutorial's commands give them)."""

    weights: str | None = option(None, flags=["--weight"], hidden=True, help="not needed")
