"""Options and the dataset YAML of detection (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from ..backbones.settings import BackboneOptions, ModelSummary, TuneOptions
from ..core.config import CommandSettings, Settings, Sides, option
from ..data.boxes.settings import BoxDataset, BoxFolders
from ..data.common.settings import DataOptions
from ..engine.settings import TrainingOptions
from ..features.settings import CacheOptions
from ..predict.settings import IdentityOptions, ImageOptions, VideoOptions

HEADS = ("atss", "ssd", "retinanet", "fcos", "deimv2")


class DetectionModelOptions(BackboneOptions):
    """Detection model."""

    head: Literal["atss", "ssd", "retinanet", "fcos", "deimv2"] = option(
        "atss", help="detection head"
    )
    imgsz: Sides = option(
        [640, 640], help="width and height of the model's input (one number: both)"
    )
    pyramid_channels: int | None = option(
        None, ge=16, help="channels of each pyramid level (default: 64 to 256, by the backbone)"
    )

    deimv2_size: Literal["s", "m", "l", "x"] | None = option(
        None,
        help="--head deimv2 with the measures of DEIMv2-S, M, L or X, and otherwise as published, "
        "too (default: about S's, of --pyramid-channels)",
    )

    @model_validator(mode="after")
    def _size_of_deimv2_alone(self) -> DetectionModelOptions:
        if self.deimv2_size and self.head != "deimv2":
            raise ValueError(f"--deimv2-size is for --head deimv2, not {self.head}: leave it out")
        if self.deimv2_size and self.pyramid_channels:
            raise ValueError("--deimv2-size says the width: leave --pyramid-channels out")
        return self

    def model_arguments(self) -> dict[str, Any]:
        """What ``build_detector`` takes, but the classes and ``nms``."""
        own = {"channels": self.pyramid_channels, "deimv2_size": self.deimv2_size}
        return {**super().model_arguments(), "head": self.head, **own}


class TrainDetection(
    TrainingOptions, TuneOptions, DetectionModelOptions, DataOptions, CacheOptions
):
    """Train a detector on a DINO backbone, from a dataset YAML."""

    dataset_class: ClassVar[type[Settings] | None] = BoxDataset

    config: Path = option(
        Path("detection_configs/voc.yaml"),
        flags=["-c"],
        help="dataset YAML (detection_configs/)",
    )
    lr: float = option(
        1e-3,
        gt=0,
        flags=["-lr", "--learning-rate"],
        help="learning rate (the default: for 16 images a step, else by the root of their number)",
    )
    weight_decay: float = option(0.05, ge=0, help="weight decay (none on norms and biases)")
    schedule: Literal["multistep", "cosine", "flat-cosine"] = option(
        "cosine",
        help="learning rate: divided by 10 at --scheduler-epochs (the default where they are "
        "named), cosine to 0, or flat for the first half and then cosine",
    )
    warmup_epochs: float = option(
        0.5,
        ge=0,
        help="epochs of linear warm-up (where it is not named at least 500 steps, at most a "
        "quarter of the epochs)",
    )
    clip: float = option(5.0, ge=0, help="largest gradient norm; 0 = no clipping")
    ema: float = option(
        0.999,
        ge=0,
        lt=1,
        help="decay of the moving average of the weights (less in the first steps); 0 = none",
    )
    augment: Literal["none", "flip", "ssd", "lsj", "strong", "mosaic"] = option(
        "flip",
        help="augmentation preset; lsj: large-scale jitter; mosaic: not in the last epochs",
    )
    multi_scale: float = option(
        0.0,
        ge=0,
        lt=1,
        help="train a third of the batches so much smaller than --imgsz, a third so much larger, "
        "e.g. 0.25; 0 = none",
    )
    nms: float = option(0.45, gt=0, le=1, help="IoU above which the weaker of two boxes goes")
    scheduler: bool = option(False, hidden=True, help="the tutorial's flag; without effect")
    out_dir: Path = option(Path("img_det"), help="sub-folder of outputs/ for this run")

    @model_validator(mode="after")
    def _nms_where_it_is_done(self) -> TrainDetection:
        named = "nms" in self.model_fields_set and not self.resume  # config.yaml names all
        if self.head == "deimv2" and named:
            raise ValueError(
                "--nms has no effect with --head deimv2, which needs none: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _scales_of_images(self) -> TrainDetection:
        if self.multi_scale and self.cache_features:
            raise ValueError(
                "--multi-scale resizes images; --cache-features keeps what the backbone said of "
                "them: leave one out"
            )
        return self

    @model_validator(mode="after")
    def _steps_where_named(self) -> TrainDetection:
        if "scheduler_epochs" in self.model_fields_set and "schedule" not in self.model_fields_set:
            self.schedule = "multistep"
        return self


class DetectionModelSummary(ModelSummary, DetectionModelOptions):
    """Print the layers, parameters and multiply-adds of a detector."""

    num_classes: int = option(21, ge=2, help="number of classes, background included")


class DetectionInference(CommandSettings):
    """Detections (evaluation and inference alike)."""

    threshold: float = option(0.25, ge=0, le=1, help="least score of a detection to keep")
    nms: float | None = option(
        None, gt=0, le=1, help="IoU above which the weaker of two boxes goes (default: training's)"
    )
    tiles: int = option(
        1, ge=1, le=16, help="look at N x N parts of each image as well, for small objects"
    )
    overlap: float = option(
        0.2, ge=0, le=0.8, help="share of a tile that the next one shows too (see --tiles)"
    )


class DetectionOutput(DetectionInference, IdentityOptions):
    """Detections."""

    classes: list[str] | None = option(None, help="names of the classes to keep (default: all)")
    max_det: int | None = option(None, ge=1, help="most detections of an image, the best ones")
    track: bool = option(False, help="of a video: an id for each object, the same in all frames")
    roi: list[float] | None = option(
        None,
        help="keep what has its centre in a box (x1 y1 x2 y2) or a polygon (x1 y1 x2 y2 x3 y3 ...),"
        " in pixels, or in shares of the image where none is above 1",
    )

    @field_validator("roi")
    @classmethod
    def _box_or_polygon(cls, roi: list[float] | None) -> list[float] | None:
        if roi is not None and (len(roi) < 4 or len(roi) % 2 or min(roi) < 0):
            raise ValueError("give 4 numbers for a box, or 6, 8, ... for a polygon, none below 0")
        return roi


class EvaluateDetection(DetectionInference, BoxFolders):
    """Evaluation of detection."""


class InferDetectionImage(ImageOptions, DetectionOutput):
    """Detect objects in images: a file, a folder or a glob."""

    out_dir: Path = option(Path("img_det_inference"), help="sub-folder of outputs/ for the results")


class InferDetectionVideo(VideoOptions, DetectionOutput):
    """Detect objects in a video file, a camera or a network stream."""

    out_dir: Path = option(Path("vid_det_inference"), help="sub-folder of outputs/ for the results")

    @model_validator(mode="after")
    def _boxes_move(self) -> InferDetectionVideo:
        if self.every > 1 and not self.track:
            raise ValueError("--every needs --track, which moves boxes on between the key frames")
        return self
