"""Options of depth (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from ..backbones.settings import BackboneOptions, TuneOptions
from ..core.config import CommandSettings, Settings, Sides, option
from ..core.structures import WholeResize
from ..data.depths.settings import DepthDataset, DepthFolders
from ..engine.settings import TrainingOptions
from ..features.settings import CacheOptions
from ..predict.settings import ImageOptions, VideoOptions

Head = Literal["linear", "dpt", "dinov2-linear", "dinov2-dpt"]


class DepthModelOptions(BackboneOptions):
    """Depth model."""

    head: Head = option(
        "linear",
        help="linear = Meta's probe (lin1 with --feature-extractor last, lin4 with multi) behind a "
        "batch norm; dpt; dinov2-linear, dinov2-dpt = as in the published DINOv2 models of depth",
    )
    head_channels: int = option(256, ge=16, help="width of --head dpt and dinov2-dpt")
    bins: int = option(256, ge=2, help="depths between the data's MIN_DEPTH and MAX_DEPTH")
    bins_norm: Literal["linear", "softmax"] = option(
        "linear", help="how scores of bins become shares; linear = as Meta evaluates"
    )
    imgsz: Sides = option(
        [640, 480], help="width and height of the model's input (one number: both)"
    )

    def model_arguments(self) -> dict[str, Any]:
        """What ``build_depther`` takes, but the depths and the loss."""
        return {**super().model_arguments(), "head": self.head, "channels": self.head_channels}


class DepthInference(CommandSettings):
    """Looks at an image (validation, evaluation and inference alike)."""

    flip: bool = option(False, flags=["--flip-average"], help="average with the mirrored image")


class TrainDepth(
    TrainingOptions, TuneOptions, DepthModelOptions, DepthFolders, DepthInference, CacheOptions
):
    """Train depth from single pictures on a DINO backbone, from a dataset YAML."""

    dataset_class: ClassVar[type[Settings] | None] = DepthDataset

    config: Path = option(
        Path("depth_configs/nyu.yaml"), flags=["-c"], help="dataset YAML (depth_configs/)"
    )
    data_root: Path | None = option(
        None, help="folder that the YAML's paths start from (default: its DATA_ROOT)"
    )
    lr: float = option(3e-4, gt=0, flags=["-lr", "--learning-rate"], help="learning rate")
    resize: WholeResize = option(
        "fit",
        help="fit = keep the aspect ratio inside --imgsz; stretch = fill it exactly; short = keep "
        "the aspect ratio, the short side is that of --imgsz",
    )
    augment: Literal["none", "flip", "strong"] = option(
        "strong", help="none; flip; strong = and turned a little, crop, light and colour"
    )
    loss: Literal["silog", "silog+steps"] = option(
        "silog",
        help="scale-invariant logarithmic loss; steps = and sharper edges (Meta's with DPT)",
    )
    eval_every: int = option(1, ge=1, help="evaluate every N epochs (and after the last)")
    pictures: int = option(4, ge=0, help="validation images drawn after each evaluation")
    save_samples: bool = option(False, help="write a batch of transformed samples as a picture")
    skip_check: bool = option(False, help="skip the quick check of the data before training")
    out_dir: Path = option(Path("img_depth"), help="sub-folder of outputs/ for this run")


class DepthModelSummary(DepthModelOptions):
    """Print the layers, parameters and multiply-adds of a model of depth."""

    weights: str = option(
        "none", flags=["--weight"], help="backbone weights: a file, 'pretrained' or 'none' (random)"
    )

    def model_arguments(self) -> dict[str, Any]:
        """What ``build_depther`` takes."""
        from .heads.base import Range

        return {**super().model_arguments(), "span": Range(bins=self.bins, norm=self.bins_norm)}


class EvaluateDepth(DepthInference, DepthFolders):
    """Evaluation of depth."""

    test_images: Path | None = option(None, help="folder of test images")
    test_depths: Path | None = option(None, help="folder of test depths")


class DepthOutput(DepthInference):
    """Depth."""

    model_name: str | None = option(None, help="backbone that the checkpoint must have")
    head: str | None = option(None, help="head that the checkpoint must have")
    near: float | None = option(
        None, ge=0, help="metres at the bright end of the colours (default: images 2 % of the "
        "pixels, videos the model's least)"
    )  # fmt: skip
    far: float | None = option(
        None, gt=0, help="metres at the dark end of the colours (default: images 98 % of the "
        "pixels, videos the model's most)"
    )  # fmt: skip
    save_arrays: bool = option(
        False, help="write metres as arrays/*.npy (float32 [H, W]) as well, of video frames, too"
    )
    depth_scale: float = option(
        1000.0, gt=0, help="value of one metre in the 16-bit PNG files (pictures only)"
    )


class InferDepthImage(ImageOptions, DepthOutput):
    """Depth of images: a file, a folder or a glob."""

    out_dir: Path = option(
        Path("inference_results_depth"), help="sub-folder of outputs/ for the results"
    )


class InferDepthVideo(VideoOptions, DepthOutput):
    """Depth of a video file, a camera or a network stream."""

    out_dir: Path = option(
        Path("inference_results_depth"), help="sub-folder of outputs/ for the results"
    )
