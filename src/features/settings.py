"""Options of the feature commands (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from ..backbones.settings import BackboneOptions
from ..core.config import PRECISION_HELP, CommandSettings, Precision, Sides, Sources, option
from ..core.structures import ResizeMode

What = Literal["cls", "patches", "map", "cls+patches"]
SUFFIXES = (".safetensors", ".npy", ".parquet")


class RunOptions(CommandSettings):
    """Running."""

    batch: int = option(32, flags=["-b"], ge=1, help="images the backbone takes at once")
    workers: int | None = option(
        None, ge=1, help="threads that read and resize ahead (default: by the machine)"
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where to run")
    precision: Precision = option("auto", help=PRECISION_HELP)


class FeatureOptions(RunOptions, BackboneOptions):
    """Features."""

    feature_extractor: Literal["last", "multi"] = option(
        "last", flags=["--feautre-extractor"], hidden=True, help="without effect here"
    )
    fine_tune: bool = option(False, hidden=True, help="without effect here")
    imgsz: Sides = option(
        [224], help="width and height that images are resized to (one number: both)"
    )
    resize: ResizeMode = option(
        "fit",
        help="fit = keep the aspect ratio inside --imgsz; stretch = fill it exactly; short = keep "
        "the aspect ratio, the short side is that of --imgsz; crop = the middle of 8/7 of "
        "--imgsz (resize 256, crop 224)",
    )
    seed: int = option(0, help="seed of the random weights of --weights none")


class ExtractOptions(FeatureOptions):
    """Write the features of many images to one file, a row an image."""

    input: Sources = option(
        ..., flags=["-i"], help="images: files, folders, globs, or shards ('x-{000..009}.tar')"
    )
    out: Path = option(..., flags=["-o"], help="features.safetensors, .npy or .parquet")
    what: What = option(
        "cls", help="class token, mean of the patch tokens, whole map, or the first two joined"
    )
    unit: bool = option(False, help="scale each vector to length 1 (not with --what map)")
    store: Literal["float32", "float16"] = option("float32", help="type of the numbers written")
    chunk: int = option(256, ge=1, help="images between two safe points: what a kill costs at most")

    @field_validator("out")
    @classmethod
    def _known_suffix(cls, value: Path) -> Path:
        if value.suffix.lower() not in SUFFIXES:
            raise ValueError(f"must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
        return value


class SimilarityOptions(FeatureOptions):
    """The cosine of two images: similarity A B."""

    images: tuple[Path, Path] = option(
        ..., metavar="IMAGE", positional=True, help="the two images (the flag may be left out)"
    )
    what: Literal["cls", "patches", "cls+patches"] = option(
        "cls", help="class token, mean of the patch tokens, or both joined"
    )


class CacheOptions(CommandSettings):
    """Features of a frozen backbone, kept."""

    cache_features: bool = option(
        False,
        help="with a frozen backbone: the first epoch writes its features to disk, later epochs "
        "train the head alone",
    )
    cache_views: int = option(
        1, ge=1, help="augmented views of each training image to keep (1: the plain image)"
    )
    cache_dtype: Literal["float32", "float16"] = option(
        "float32", help="type of the features kept; float16 halves the disk space"
    )
    cache_dir: Path = option(
        Path("feature_cache"), help="sub-folder of outputs/ for kept features, shared by runs"
    )

    def preset(self, augment: Any) -> Any:
        """``--augment``, or none where one view of each image is kept."""
        return "none" if self.cache_features and self.cache_views == 1 else augment
