"""From a source (images, or a video) to pictures in a folder: what the commands share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..core.errors import UserError
from ..core.files import atomic_path, require_writable
from ..core.progress import Progress
from ..core.structures import Size
from ..data.common.images import list_images, read_image, write_image
from ..predict.capture import Frame, VideoReader
from ..predict.images import no_interrupt, one_cv2_thread, output_names
from ..predict.predictor import Predictor
from ..predict.video import VideoWriter, encoder_threads
from .settings import PictureOptions

log = logging.getLogger(__name__)

T = TypeVar("T")
Render = Callable[[np.ndarray, Any], np.ndarray]  # (image, the model's result) -> picture


def picture_paths(paths: Sequence[Path], out_dir: Path, ending: str) -> list[Path]:
    """``<out_dir>/<stem>_<ending>``, a name of its own for each image.

    Raises UserError when a picture would overwrite one of the images.
    """
    suffix = Path(ending).suffix
    names = output_names([path.with_name(f"{path.stem}{suffix}") for path in paths])
    outputs = [out_dir / f"{Path(name).stem}_{ending}" for name in names]
    sources = {path.resolve() for path in paths}
    if any(output.resolve() in sources for output in outputs):
        raise UserError(
            f"the results would overwrite the images in {out_dir}; choose another --out-dir"
        )
    return outputs


def in_groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items; the last may be shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def results_of_images(
    predictor: Predictor[Any], paths: Sequence[Path], faults: list[str]
) -> Iterator[tuple[int, np.ndarray, Any]]:
    """(index, image, result) of each image that can be read; what is wrong goes to ``faults``."""
    progress = Progress("images", len(paths))
    try:
        for group in in_groups(enumerate(paths), predictor.batch):
            read: list[tuple[int, np.ndarray]] = []
            for index, path in group:
                try:
                    read.append((index, read_image(path)))
                except UserError as error:
                    log.error("%s", error)
                    faults.append(str(error))
            results = predictor.predict([image for _, image in read])
            for (index, image), result in zip(read, results):
                yield index, image, result
                progress.advance()
    finally:
        progress.close()


def render_images(
    predictor: Predictor[Any],
    paths: Sequence[Path],
    out_dir: Path,
    ending: str,
    render: Render,
    arrays: Callable[[Any], dict[str, Any]] | None = None,
) -> int:
    """One picture for each image, and an .npz beside it of what ``arrays`` makes of the result.

    Returns the exit code: 1 when an image could not be read.
    """
    outputs = picture_paths(paths, require_writable(out_dir), ending)
    faults: list[str] = []
    with one_cv2_thread(predictor):
        for index, image, result in results_of_images(predictor, paths, faults):
            write_image(outputs[index], render(image, result))
            if arrays is not None:
                with atomic_path(outputs[index].with_suffix(".npz")) as temporary:
                    np.savez(temporary, **arrays(result))
    log.info("%d pictures are in %s", len(paths) - len(faults), out_dir)
    return 1 if faults else 0


def results_of_video(
    predictor: Predictor[Any], reader: VideoReader, max_frames: int | None
) -> Iterator[tuple[Frame, Any]]:
    """(frame, result) in order."""
    limits = [n for n in (reader.frames, max_frames) if n is not None]
    progress = Progress("frames", unit="frames", total=min(limits) if limits else None)
    try:
        size = 1 if reader.live else predictor.batch
        for frames in in_groups(islice(reader, max_frames), size):
            results = predictor.predict([frame.image for frame in frames])
            for frame, result in zip(frames, results):
                yield frame, result
                progress.advance()
    finally:
        progress.close()


def video_path(reader: VideoReader, out_dir: Path, ending: str) -> Path:
    """Where the video goes. Raises UserError when it would overwrite its source."""
    path = require_writable(out_dir) / f"{reader.name}_{ending}"
    if path.exists() and Path(reader.source).exists() and path.samefile(reader.source):
        raise UserError(f"the result would overwrite {reader.source}; choose another --out-dir")
    return path


def write_video(
    pictures: Iterable[tuple[np.ndarray, float]],
    path: Path,
    rate: Fraction,
    *,
    timed: bool = False,
    threads: int = 1,
) -> None:
    """(picture, seconds) to an .mp4; what was done is kept after an error or Ctrl-C.

    rate, timed: as ``VideoWriter`` takes them. Raises UserError.
    """
    writer: VideoWriter | None = None
    try:
        for picture, seconds in pictures:
            if writer is None:
                size = Size(picture.shape[1], picture.shape[0])
                writer = VideoWriter(path, size, rate, timed=timed, threads=threads)
            writer.write(np.ascontiguousarray(picture), seconds)
    finally:
        if writer is not None:
            with no_interrupt():
                writer.close()
    log.info("the video is %s", path)


def render_video(
    predictor: Predictor[Any],
    source: str,
    out_dir: Path,
    ending: str,
    render: Render,
    max_frames: int | None,
) -> int:
    """One picture for each frame, as ``<name>_<ending>.mp4``. Returns the exit code."""
    reader = VideoReader(source)
    path = video_path(reader, out_dir, ending)
    with one_cv2_thread(predictor):
        pictures = (
            (render(frame.image, result), frame.seconds)
            for frame, result in results_of_video(predictor, reader, max_frames)
        )
        threads = encoder_threads(predictor.on_cuda)
        write_video(pictures, path, reader.rate, timed=not reader.steady, threads=threads)
    if reader.fault is not None:
        log.error("%s", reader.fault)
    return 1 if reader.fault else 0


def render_source(
    predictor: Predictor[Any],
    options: PictureOptions,
    out_dir: Path,
    ending: str,
    render: Render,
) -> int:
    """``render_video`` for a video, else ``render_images``."""
    most = options.max_frames
    if options.video is not None:
        return render_video(predictor, options.video, out_dir, f"{ending}.mp4", render, most)
    return render_images(predictor, list_images(options.input), out_dir, f"{ending}.png", render)
