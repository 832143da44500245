"""Options of the picture commands (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from ..backbones.settings import BackboneOptions
from ..core.config import PRECISION_HELP, Precision, Sides, Sources, option
from ..core.structures import Size
from ..predict.settings import is_video


class PatchOptions(BackboneOptions):
    """Patches."""

    feature_extractor: Literal["last", "multi"] = option(
        "multi", flags=["--feautre-extractor"], hidden=True, help="without effect here"
    )
    fine_tune: bool = option(False, hidden=True, help="without effect here")
    layer: str = option(
        "auto",
        help="feature map to take, e.g. layer12 or stage3; auto = a ViT's last block, a "
        "ConvNeXt's third stage (stride 16)",
    )
    imgsz: Sides = option(
        [448],
        help="the image is resized to fit this width and height (one number: both), its sides "
        "rounded to whole patches; larger = finer pictures",
    )
    seed: int = option(0, help="seed of the random weights of --weights none")
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where to run")
    precision: Precision = option("auto", help=PRECISION_HELP)
    batch: int = option(4, flags=["-b"], ge=1, help="images the backbone takes at once")

    @property
    def image_size(self) -> Size:
        """``--imgsz`` as a Size."""
        return Size(*self.imgsz)


class PictureOptions(PatchOptions):
    """Input and output."""

    input: Sources = option(
        ..., flags=["-i"], help="images (files, folders, globs) or a video file"
    )
    max_frames: int | None = option(None, ge=1, help="of a video: stop after this many frames")

    @property
    def video(self) -> str | None:
        """The input where it is a video."""
        return self.input[0] if len(self.input) == 1 and is_video(self.input[0]) else None


class AttentionOptions(PictureOptions):
    """Attention of the class token, per head and block, and its rollout (ViTs only)."""

    blocks: list[int] = option(
        [-1], help="blocks to show, from 0; negative numbers count from the last"
    )
    all_blocks: bool = option(False, help="show every block: its mean over the heads, and rollout")
    save_arrays: bool = option(
        False,
        help="write the numbers as well, <name>_attention.npz: blocks [shown, heads, h, w], means "
        "[all blocks, h, w], rollout [h, w] (of images, not of videos)",
    )
    out_dir: Path = option(Path("attention"), help="sub-folder of outputs/ for the pictures")


class PcaOptions(PictureOptions):
    """The first principal components of the patch features as red, green and blue."""

    shared: bool = option(
        False, help="one projection for all images, so that colours can be compared between them"
    )
    foreground: Literal["off", "auto", "invert"] = option(
        "off",
        help="show only the patches on one side of the first component: auto = the side that "
        "touches the edges of the images less, invert = the other",
    )
    fit_on: int = option(16, ge=1, help="images, or frames of a video, that the projection is of")
    out_dir: Path = option(Path("pca"), help="sub-folder of outputs/ for the pictures")


class SimilarityPictureOptions(PictureOptions):
    """How similar every patch is to the patch at a point: a heat map of cosines."""

    at: str = option(
        ..., metavar="X,Y", help="the point, in pixels of the original image, e.g. 120,80"
    )
    reference: Path | None = option(
        None, help="image that --at lies in (default: each image itself, a video's first frame)"
    )
    out_dir: Path = option(Path("similarity"), help="sub-folder of outputs/ for the pictures")

    @field_validator("at")
    @classmethod
    def _is_point(cls, value: str) -> str:
        _point(value)
        return value

    @property
    def point(self) -> tuple[float, float]:
        """``--at`` as (x, y)."""
        return _point(self.at)


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("give one point as x,y in pixels, e.g. --at 120,80") from None
    return x, y
