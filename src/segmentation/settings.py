"""Options of segmentation (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from ..backbones.settings import BackboneOptions, ModelSummary, TuneOptions
from ..core.config import CommandSettings, Settings, Sides, option
from ..data.common.settings import DataOptions
from ..data.masks.settings import FolderOptions, MaskDataset
from ..engine.settings import TrainingOptions
from ..features.settings import CacheOptions
from ..predict.settings import IdentityOptions, ImageOptions, VideoOptions

HEADS = ("linear", "conv", "fpn", "dpt", "queries", "eomt")
OWN_LOSS = ("queries", "eomt")  # heads that no --loss reaches
Head = Literal["linear", "conv", "fpn", "dpt", "queries", "eomt"]


class SegmentationModelOptions(BackboneOptions):
    """Segmentation model."""

    head: Head = option(
        "fpn",
        help="linear; conv = the tutorial's; fpn; dpt; queries = masks and their classes, on any "
        "backbone; eomt = queries through a ViT's own last blocks, which it trains",
    )
    head_channels: int = option(256, ge=16, help="width of the head (eomt: that of the ViT)")
    imgsz: Sides = option(
        [640, 640], help="width and height of the model's input (one number: both)"
    )

    def model_arguments(self) -> dict[str, Any]:
        """What ``build_segmenter`` takes, but the classes."""
        return {**super().model_arguments(), "head": self.head, "channels": self.head_channels}


class SegmentationInference(CommandSettings):
    """Looks at an image (validation, evaluation and inference alike)."""

    slide: bool = option(
        False,
        help="windows of --imgsz over the image at its own size (with --resize short: at that "
        "one), instead of the whole",
    )
    overlap: float = option(1 / 3, ge=0, lt=0.95, help="share of a window that the next covers")
    flip: bool = option(False, help="average with the mirrored image")
    scales: list[float] = option(
        [1.0], help="average over these sizes, e.g. 0.75 1 1.25, each made of the original picture"
    )

    @field_validator("scales")
    @classmethod
    def _positive(cls, value: list[float]) -> list[float]:
        if not value or not all(0.1 <= scale <= 8 for scale in value):
            raise ValueError("scales are factors from 0.1 to 8")
        return value

    def looks(self) -> list[str]:
        """The flags that ask for more than one plain look."""
        asked = {"--slide": self.slide, "--flip": self.flip, "--scales": self.scales != [1.0]}
        return [flag for flag, given in asked.items() if given]


class TrainSegmentation(
    TrainingOptions,
    TuneOptions,
    SegmentationModelOptions,
    DataOptions,
    FolderOptions,
    SegmentationInference,
    CacheOptions,
):
    """Train semantic segmentation on a DINO backbone, from a dataset YAML."""

    dataset_class: ClassVar[type[Settings] | None] = MaskDataset

    config: Path = option(
        Path("segmentation_configs/voc.yaml"),
        flags=["-c"],
        help="dataset YAML (segmentation_configs/)",
    )
    augment: Literal["none", "flip", "jitter", "strong"] = option(
        "jitter", help="none; flip; jitter = scale 0.5 to 2, crop, flip; strong = and colour"
    )
    loss: Literal["ce", "ce+dice", "ce+lovasz"] = option(
        "ce",
        help="cross-entropy alone, or with Dice or Lovasz (queries and eomt have their own loss)",
    )
    class_weights: Literal["none", "balanced"] = option(
        "none",
        help="balanced = by the median frequency of the training masks; the YAML's CLASS_WEIGHTS "
        "go before",
    )
    pictures: int = option(4, ge=0, help="validation images drawn after each evaluation")
    scheduler: bool = option(False, hidden=True, help="the tutorial's flag; without effect")
    out_dir: Path = option(Path("img_seg"), help="sub-folder of outputs/ for this run")

    @model_validator(mode="after")
    def _one_loss(self) -> TrainSegmentation:
        if self.head in OWN_LOSS and (self.loss != "ce" or self.class_weights != "none"):
            raise ValueError(
                f"--head {self.head} has a loss of its own: leave --loss and --class-weights out"
            )
        return self


class SegmentationModelSummary(ModelSummary, SegmentationModelOptions):
    """Print the layers, parameters and multiply-adds of a segmentation model."""


class SegmentationOutput(SegmentationInference, IdentityOptions):
    """Segmentation."""

    feature_extractor: Literal["last", "multi"] | None = option(
        None, flags=["--feautre-extractor"], hidden=True, help="the checkpoint knows it"
    )
    opacity: float = option(0.55, ge=0, le=1, help="of the classes' colours in the overlay")
    save_arrays: Literal["none", "classes", "probabilities"] = option(
        "none",
        help="write arrays/ as well, of video frames, too: classes = uint8 [H, W] as .npy; "
        "probabilities = float16 [C, H, W] as .npz (large)",
    )
    legend: bool = option(True, help="name the colours in the overlay's upper left corner")


class EvaluateSegmentation(SegmentationInference, FolderOptions):
    """Evaluation of segmentation."""

    test_images: Path | None = option(None, help="folder of test images")
    test_masks: Path | None = option(None, help="folder of test masks")


class InferSegmentationImage(ImageOptions, SegmentationOutput):
    """Segment images: a file, a folder or a glob."""

    out_dir: Path = option(
        Path("inference_results_segmentation"), help="sub-folder of outputs/ for the results"
    )


class InferSegmentationVideo(VideoOptions, SegmentationOutput):
    """Segment a video file, a camera or a network stream."""

    out_dir: Path = option(
        Path("inference_results_video"), help="sub-folder of outputs/ for the results"
    )
