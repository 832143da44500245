"""Options of the one-shot commands (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..core.config import LONGEST_SIDE, Sides, Sources, option
from ..visualise.settings import PatchOptions


class OneShotOptions(PatchOptions):
    """One-shot."""

    imgsz: Sides = option(
        [640],
        help="the image is resized to fit this width and height (one number: both), its sides "
        "rounded to whole patches; larger = finer masks",
    )
    refine: Literal["grabcut", "none"] = option(
        "grabcut",
        help="from patches to pixels: GrabCut (colour models and a graph cut, by OpenCV) along "
        "the edges of the image, or the upsampled patches as they are",
    )


class SegmentOptions(OneShotOptions):
    """Find in other images what the masks of reference images show."""

    reference: list[Path] = option(..., flags=["-r"], help="one or a few reference images")
    mask: list[Path] = option(
        ...,
        help="their masks, in the same order and size: 0 = background, anything else = the "
        "object; or several objects by number (255 = left out)",
    )
    input: Sources = option(..., flags=["-i"], help="images: files, folders or globs")
    parts: int = option(4, ge=1, help="prototypes an object, by k-means")
    background_parts: int = option(12, ge=1, help="prototypes of the background, by k-means")
    threshold: float = option(0.5, ge=0, le=1, help="least score of a region to keep")
    min_area: float = option(
        0.001, ge=0, le=1, help="smaller regions than this share of the image are left out"
    )
    out_dir: Path = option(Path("oneshot"), help="sub-folder of outputs/ for the results")


class PropagateOptions(OneShotOptions):
    """Carry the mask of a video's first frame through the video (DINO's label propagation)."""

    imgsz: int = option(  # type: ignore[assignment]
        480,
        ge=16,
        le=LONGEST_SIDE,
        help="the short side that frames are resized to (DINO's protocol: 480), both rounded to "
        "whole patches; larger = finer masks",
    )
    refine: Literal["grabcut", "none"] = option(
        "none",
        help="from patches to pixels: GrabCut along the edges of each frame, or the upsampled "
        "labels as they are (DINO's protocol)",
    )
    input: str = option(
        ..., flags=["-i"], help="a video file, or the frames as a folder or glob of images"
    )
    mask: Path = option(..., help="mask of the first frame: 0 = background, 1, 2, ... = objects")
    truth: Path | None = option(
        None, help="folder of the true masks, one a frame in order: J and F are measured"
    )
    top_k: int = option(5, ge=1, help="patches of earlier frames that vote for a patch")
    neighbourhood: int = option(
        12, ge=0, help="patches further away than this (in patches) do not vote; 0 = all vote"
    )
    queue: int = option(7, ge=1, help="frames before the present that vote, besides the first")
    temperature: float = option(0.1, gt=0, help="votes weigh exp(cosine / temperature)")
    max_frames: int | None = option(None, ge=1, help="stop after this many frames")
    out_dir: Path = option(Path("propagation"), help="sub-folder of outputs/ for the results")
