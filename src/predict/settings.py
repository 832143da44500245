"""Options of every inference command (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from ..core.config import (
    PRECISION_HELP,
    CommandSettings,
    Precision,
    Sides,
    Sources,
    option,
)
from ..core.structures import ResizeMode

_SUFFIXES = "mp4 m4v mov avi mkv webm mpg mpeg wmv flv ts mts 3gp ogv"
VIDEO_SUFFIXES = frozenset("." + suffix for suffix in _SUFFIXES.split(" "))


def is_video(source: str | Path) -> bool:
    """Whether the source is named like a video file, or is a network address."""
    return "://" in str(source) or Path(source).suffix.lower() in VIDEO_SUFFIXES


def names_video(source: str) -> bool:
    """Whether ``--input`` means a video: a file, a camera's index or an address."""
    return source.isdigit() or is_video(source)


class ModelOptions(CommandSettings):
    """The trained model, and how it looks at images (inference and evaluation alike)."""

    model: Path = option(
        ...,
        flags=["-m"],
        help="checkpoint of a training run, best_model.pth or the run's folder; what src.export "
        "made of it; or a published model, hub:NAME (dinostack models lists them)",
    )
    imgsz: Sides | None = option(
        None, help="width and height of the model's input (one number: both); default: training's"
    )
    resize: ResizeMode | None = option(
        None, help="how images get to that size, as training's --resize; default: training's"
    )
    backbone_weights: str | None = option(
        None,
        help="the backbone's weights, for a checkpoint of --head-only (default: those that it was "
        "trained on, at their path, in the weights folder or from the hub)",
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where to run")
    precision: Precision = option("auto", help=PRECISION_HELP)
    batch: int | None = option(
        None, ge=1, help="images the model takes at once (default: 16 on CUDA, 4 on the CPU)"
    )
    compile: bool = option(
        False,
        help="compile the model (torch.compile; on CUDA with CUDA graphs): worth it for many "
        "images, the first of each shape wait up to a minute",
    )


class PredictOptions(ModelOptions):
    """Inference."""

    out_dir: Path = option(..., help="sub-folder of outputs/ for the results")
    show: bool = option(False, help="show each result in a window")


class ImageOptions(PredictOptions):
    """Inference on images."""

    input: Sources = option(..., flags=["-i"], help="what to run on: files, folders or globs")
    recursive: bool = option(False, help="take the images of sub-folders as well")


class EvaluationOptions(ModelOptions):
    """Evaluation."""

    config: Path | None = option(
        None,
        flags=["-c"],
        help="dataset YAML, or the config.yaml of a run (default: the data of the checkpoint's "
        "own run)",
    )
    data_root: Path | None = option(
        None, help="folder that the YAML's paths start from (default: its DATA_ROOT)"
    )
    split: Literal["train", "valid", "test"] = option("valid", help="which split of the data")
    workers: int = option(4, ge=0, help="processes that load data")
    out_dir: Path = option(Path("evaluation"), help="sub-folder of outputs/ for the results")
    overwrite: bool = option(False, help="replace an earlier evaluation in --out-dir")


class VideoOptions(PredictOptions):
    """Inference on a video."""

    input: str = option(
        ..., flags=["-i"], help="a video file, a camera index (0), or an rtsp:// or http:// address"
    )
    max_frames: int | None = option(None, ge=1, help="stop after this many frames")
    every: int = option(
        1,
        ge=1,
        help="look at every Nth frame alone: between them maps are held, and tracked boxes move on",
    )


class KnownOptions(CommandSettings):
    """Checked against the checkpoint (it knows them; the tutorial's commands give them)."""

    model_name: str | None = option(None, help="backbone that the checkpoint must have")
    head: str | None = option(None, help="head that the checkpoint must have")
    config: Path | None = option(None, help="dataset YAML whose classes the checkpoint must have")
    repo_dir: Path | None = option(None, hidden=True, help="not needed")


class IdentityOptions(KnownOptions):
    """Checked against the checkpoint (it knows them; the tutorial's commands give them)."""

    weights: str | None = option(
        None, flags=["--weight"], hidden=True, help="as --backbone-weights"
    )

    @model_validator(mode="before")
    @classmethod
    def _model_by_its_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("weights") and not values.get("model"):
            raise ValueError(f"the trained model is named by --model: --model {values['weights']}")
        if isinstance(values, dict) and values.get("weights"):
            return {"backbone_weights": values["weights"], **values}
        return values
