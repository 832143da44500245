"""Options of YOLO with DINO (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from ...core.config import CommandSettings, option

Context = Literal["none", "global", "patch", "multi"]
# What compare trains: settings that differ from those of a plain YOLO.
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"context": "none"},
    "global": {"context": "global"},
    "patch": {"context": "patch"},
    "multi": {"context": "multi"},
    "zeroed": {"context": "global", "control": "zero"},
    "shuffled": {"context": "global", "control": "shuffle"},
    "distilled": {"context": "none", "distill": 1.0},
}


class YoloData(CommandSettings):
    """Data."""

    config: Path = option(
        ..., flags=["-c"], help="dataset YAML (detection_configs/), or an ultralytics data.yaml"
    )
    data_root: Path | None = option(
        None, help="folder that the YAML's paths start from (default: its DATA_ROOT)"
    )


class DeviceOptions(CommandSettings):
    """Device."""

    device: str = option("auto", help="auto, cpu, or GPUs by their numbers: 0 or 0,1")


class TrainingRecipe(YoloData, DeviceOptions):
    """Training."""

    yolo: str = option("yolov8n", help="yolov8, yolo11 or yolo26 and its size: n, s, m, l or x")
    init: Path | None = option(
        None, help="start from this .pt: a plain YOLO (yolov8n.pt), or a run of this command"
    )
    model_name: str = option("dinov3_vits16", help="the frozen backbone, by its torch.hub name")
    weights: str = option(
        "pretrained",
        flags=["--weight"],
        help="its weights: a file name in the weights folder, a path, 'pretrained' (from the "
        "network) or 'none' (random)",
    )
    imgsz: int = option(640, ge=32, help="longer side of the input, in pixels")
    batch: int = option(16, ge=1, flags=["-b"], help="images a step, over all GPUs together")
    epochs: int = option(100, ge=1, flags=["-e"], help="number of epochs")
    workers: int = option(8, ge=0, help="processes that load data (on a CPU there are none)")
    set: list[str] = option(
        [], help="further arguments of ultralytics, e.g. optimizer=SGD lr0=0.01 cos_lr=True"
    )

    @model_validator(mode="after")
    def _pairs(self) -> TrainingRecipe:
        for word in self.set:
            name, found, _ = word.partition("=")
            if not found:
                raise ValueError(f"--set {word}: give NAME=VALUE")
            if name in RESERVED:
                raise ValueError(f"--set {name}: {RESERVED[name]}")
        return self


RESERVED = dict.fromkeys(("data", "task", "mode", "project", "name", "exist_ok"), "give --out-dir")
RESERVED |= {name: f"give --{name}" for name in ("imgsz", "batch", "epochs", "workers", "device")}
RESERVED |= {"model": "give --yolo", "pretrained": "give --init", "mosaic": "give --no-mosaic"}
RESERVED |= {"resume": "give --resume", "seed": "give --seed"}
RESERVED["compile"] = "it would take the loss apart from the network; it is off"


class TrainYolo(TrainingRecipe):
    """Train a YOLO with DINO's context joined to its features, or taught by DINO."""

    context: Context = option(
        "global",
        help="what is joined: global = the class token, everywhere the same; patch = the patches "
        "at stride 32; multi = patches at strides 8 and 32; none = a plain YOLO",
    )
    control: Literal["none", "zero", "shuffle"] = option(
        "none", help="for comparisons: a context of zeros, or that of another image of the batch"
    )
    distill: float = option(
        0.0, ge=0, help="weight of learning from DINO's tokens (with --context none)"
    )
    mosaic: bool = option(True, help="collages of four images, but in the last epochs")
    seed: int = option(0, ge=0, help="of weights, order and augmentation")
    resume: bool = option(False, help="go on with the run in --out-dir after its last epoch")
    overwrite: bool = option(False, help="replace an earlier run in --out-dir")
    out_dir: Path = option(Path("yolo"), help="sub-folder of outputs/ for this run")

    @model_validator(mode="after")
    def _fits_together(self) -> TrainYolo:
        if self.distill and self.context != "none":
            raise ValueError("--distill takes the place of a context: give --context none with it")
        if self.control != "none" and self.context == "none":
            raise ValueError(f"--control {self.control} is of a context, and there is none")
        return self


class TrainedOptions(CommandSettings):
    """The trained network."""

    model: Path = option(..., flags=["-m"], help="best.pt of a training, or the run's folder")
    imgsz: int | None = option(
        None, ge=32, help="longer side of the input, in pixels (default: training's)"
    )


class UseOptions(TrainedOptions, DeviceOptions):
    """The trained network."""

    batch: int | None = option(
        None, ge=1, flags=["-b"], help="images at once (default: 16 on a GPU, 4 on the CPU)"
    )


class ValYolo(UseOptions, YoloData):
    """Score a trained YOLO: ultralytics' figures, and COCO's as this project has them."""

    split: Literal["train", "valid", "test"] = option("valid", help="which split of the data")
    out_dir: Path = option(Path("yolo_val"), help="sub-folder of outputs/ for the results")


def _as_list(value: Any) -> Any:
    return [str(value)] if isinstance(value, (str, Path)) else value


class PredictYolo(UseOptions):
    """Annotate images or a video, with this project's drawing and result files."""

    input: Annotated[list[str], BeforeValidator(_as_list)] = option(
        ..., flags=["-i"], help="files, folders or globs of images; or one video, camera, address"
    )
    threshold: float = option(0.25, ge=0, le=1, help="least score of a detection to keep")
    nms: float = option(0.7, gt=0, le=1, help="IoU above which the weaker of two boxes goes")
    half: bool = option(False, help="compute in fp16 (a GPU)")
    recursive: bool = option(False, help="take the images of sub-folders as well")
    show: bool = option(False, help="show each result in a window")
    max_frames: int | None = option(None, ge=1, help="stop after this many frames of a video")
    out_dir: Path = option(Path("yolo_inference"), help="sub-folder of outputs/ for the results")


class ExportYolo(TrainedOptions):
    """Write a trained YOLO, DINO inside, as ONNX, and compare it on a picture of noise."""

    out: Path | None = option(None, help="file to write (default: beside the model)")


class CompareYolo(TrainingRecipe):
    """Train plain, fused, controlled and distilled YOLOs on one data set, and tell them apart."""

    settings: list[str] = option(list(SETTINGS), help=f"which: {' '.join(SETTINGS)}")
    seeds: list[int] = option([0, 1, 2], help="each setting is trained with each")
    mosaic: Literal["on", "off", "both"] = option("both", help="with collages, without, or both")
    out_dir: Path = option(
        Path("yolo_compare"),
        help="sub-folder of outputs/; what is trained there by the same options is not "
        "trained again",
    )

    @model_validator(mode="after")
    def _known(self) -> CompareYolo:
        unknown = [name for name in self.settings if name not in SETTINGS]
        if unknown:
            raise ValueError(f"--settings {unknown[0]}: choose from {', '.join(SETTINGS)}")
        if len(set(self.settings)) < 2:
            raise ValueError("--settings: name two or more")
        return self
