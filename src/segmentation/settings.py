"""Options of segmentation (light: nothing heavy is imported here)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from ..backbones.settings import BackboneOptions, ModelSummary, TuneOptions
from ..core.config import CommandSettings, Settings, Sides, option
from ..data.common.settings import DataOptions
from ..data.instances.settings import InstanceDataset
from ..data.masks.settings import CheckMasks, FolderOptions, MaskDataset
from ..engine.settings import TrainingOptions
from ..features.settings import CacheOptions
from ..predict.settings import IdentityOptions, ImageOptions, VideoOptions

HEADS = ("linear", "conv", "fpn", "dpt", "queries", "eomt")
OWN_LOSS = ("queries", "eomt")  # heads that no --loss reaches
Head = Literal["linear", "conv", "fpn", "dpt", "queries", "eomt"]
Task = Literal["semantic", "instance", "panoptic"]


class SegmentationModelOptions(BackboneOptions):
    """Segmentation model."""

    head: Head = option(
        "fpn",
        help="linear; conv = the tutorial's; fpn; dpt; queries = masks and their classes, on any "
        "backbone; eomt = queries through a ViT's own last blocks, which it trains",
    )
    head_channels: int = option(256, ge=16, help="width of the head (eomt: that of the ViT)")
    queries: int | None = option(
        None,
        ge=1,
        help="queries of eomt and queries: no more objects are found in an image (default: 100, "
        "instance and panoptic 200)",
    )
    task: Task = option(
        "semantic",
        help="a class a pixel; a mask an object (instance: AP), or both of things and stuff "
        "(panoptic: PQ): these by eomt (the default on a ViT) or queries",
    )
    imgsz: Sides = option(
        [640, 640], help="width and height of the model's input (one number: both)"
    )

    def model_arguments(self) -> dict[str, Any]:
        """What ``build_segmenter`` takes, but the classes."""
        return {
            **super().model_arguments(),
            "head": self.head,
            "channels": self.head_channels,
            "queries": self.queries,
            "task": self.task,
        }

    @model_validator(mode="after")
    def _head_of_the_task(self) -> SegmentationModelOptions:
        if self.task != "semantic" and self.head not in OWN_LOSS:
            if "head" in self.model_fields_set:
                raise ValueError(
                    f"--task {self.task} needs a head of queries: --head eomt (on a ViT) or queries"
                )
            vit = self.model_name.startswith(("dinov3_vit", "dinov2_vit"))
            self.__dict__["head"] = "eomt" if vit else "queries"  # chosen, not given
        if self.queries is not None and self.head not in OWN_LOSS:
            raise ValueError(f"--queries does nothing with --head {self.head}")
        return self


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

    @classmethod
    def dataset_kind(cls, values: Mapping[str, Any]) -> type[Settings] | None:
        """That of objects for --task instance and panoptic."""
        return dataset_of(values.get("task"))

    config: Path = option(
        Path("segmentation_configs/voc.yaml"),
        flags=["-c"],
        help="dataset YAML (segmentation_configs/)",
    )
    augment: Literal["none", "flip", "jitter", "lsj", "strong"] = option(
        "jitter",
        help="none; flip; jitter = scale 0.5 to 2, crop, flip; lsj = from 0.1; strong = jitter "
        "and colour",
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
        if self.task != "semantic" and self.looks():
            raise ValueError(f"{', '.join(self.looks())}: not with --task {self.task}")
        if self.task == "panoptic" and getattr(self.dataset, "FORMAT", "panoptic") != "panoptic":
            raise ValueError("--task panoptic takes data of FORMAT panoptic")
        return self


def dataset_of(task: str | None) -> type[Settings]:
    """The class of the YAML of a --task."""
    return MaskDataset if task in (None, "semantic") else InstanceDataset


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
    threshold: float | None = option(
        None,
        ge=0,
        le=1,
        help="least score of an object, of models of --task instance (default: 0.5) and panoptic "
        "(0.8)",
    )


class CheckSegmentation(CheckMasks):
    """Read a whole segmentation data set and report all its faults and the pixels of classes."""

    task: Task = option("semantic", help="what the data are of, as in training")

    @classmethod
    def dataset_kind(cls, values: Mapping[str, Any]) -> type[Settings] | None:
        """As in training."""
        return dataset_of(values.get("task"))


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

    track: bool = option(
        False, help="of --task instance: an id for each object, the same in all frames"
    )
    out_dir: Path = option(
        Path("inference_results_video"), help="sub-folder of outputs/ for the results"
    )
