"""Options of the retrieval commands (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from ..core.config import CommandSettings, Sides, Sources, option
from ..core.structures import ResizeMode
from ..features.settings import FeatureOptions, RunOptions

Vector = Literal["cls", "patches", "cls+patches"]
Kind = Literal["flat", "ivf", "hnsw", "pq"]


class _Folder(CommandSettings):
    """Index."""

    index_dir: Path = option(Path("outputs/index"), help="folder of the index")


class _Described(FeatureOptions):
    """Features."""

    what: Vector = option("cls", help="class token, mean of the patch tokens, or both joined")


class BuildOptions(_Described, _Folder):
    """Make an index over the images of a folder."""

    input: Sources = option(..., flags=["-i"], help="images: files, folders or globs")
    index: Literal["auto", "flat", "ivf", "hnsw", "pq"] = option(
        "auto", help="kind of index; auto = by the number of images"
    )


class OpenOptions(RunOptions, _Folder):
    """Checked against the index (it knows them)."""

    model_name: str | None = option(None, help="backbone that the index must be of")
    weights: str | None = option(
        None, flags=["--weight"], help="weights, when they have moved; they must be the same ones"
    )
    repo_dir: Path | None = option(None, help="clone of the official code, when it has moved")
    imgsz: Sides | None = option(None, help="image size that the index must be of")
    resize: ResizeMode | None = option(None, help="resizing that the index must be of")


class SearchOptions(OpenOptions):
    """Find the images of an index that look like others."""

    input: Sources = option(..., flags=["-i"], help="query images: files, folders or globs")
    k: int = option(8, flags=["-k"], ge=1, help="images to find for each")
    include_self: bool = option(False, help="let a query that is in the index find itself")
    columns: int = option(3, ge=1, help="columns of the contact sheet")
    out_dir: Path = option(Path("search"), help="sub-folder of outputs/ for the results")


class AddOptions(OpenOptions):
    """Add images to an index without a rebuild."""

    input: Sources = option(..., flags=["-i"], help="images: files, folders or globs")


class DeleteOptions(_Folder):
    """Delete images from an index without a rebuild (the files are left alone)."""

    input: str | None = option(
        None,
        flags=["-i"],
        help="a path in the index, a folder (not its sub-folders) or a glob (** for those too)",
    )
    missing: bool = option(False, help="delete those whose file is gone")


class DuplicatesOptions(_Described):
    """Groups of near-duplicates among the images of a folder."""

    input: Sources = option(..., flags=["-i"], help="images: files, folders or globs")
    threshold: float = option(0.95, gt=-1, le=1, help="cosine from which two images are alike")
    sheets: int = option(20, ge=0, help="contact sheets of at most this many groups")
    out_dir: Path = option(Path("duplicates"), help="sub-folder of outputs/ for the results")


class EvaluateOptions(_Described):
    """recall@k and mAP on a labelled folder: DIR/class/image.jpg."""

    input: str = option(..., flags=["-i"], help="labelled folder of the queries")
    gallery: str | None = option(
        None, help="labelled folder to search (default: the queries', each without itself)"
    )
    k: list[int] = option([1, 5, 10], flags=["-k"], help="the k of recall@k")
    out_dir: Path = option(
        Path("retrieval_evaluation"), help="sub-folder of outputs/ for the results"
    )

    @field_validator("k")
    @classmethod
    def _positive(cls, value: list[int]) -> list[int]:
        if not value or min(value) < 1:
            raise ValueError("give numbers from 1 on, e.g. 1 5 10")
        return sorted(set(value))
