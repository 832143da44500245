"""Inference on pictures: read ahead, batches, annotated copies, result files; and the window."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..core.errors import UserError
from ..core.files import require_writable
from ..core.progress import Progress
from ..core.structures import Size
from ..data.common.images import (
    image_size_of,
    is_bands,
    is_image,
    list_images,
    read_bands,
    shown_bands,
    write_image,
)
from .predictor import Predictor, Prepared
from .results import Report
from .threads import Ahead, stop_all

log = logging.getLogger(__name__)

OWN_FILES = ("output", "mask", "depth")  # keys of a report's entries that name a file
WRITABLE = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def output_names(paths: Sequence[Path]) -> list[str]:
    """A file name of its own for each picture, the same on every run.

    The name stays where it can; a suffix that cannot be written becomes .png; a name that is
    taken (also by upper or lower case alone) gets its folder before it, and then a number.
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in WRITABLE else ".png"
        stems = [path.stem, f"{path.parent.name}_{path.stem}"]
        number = 2
        while f"{stems[0]}{suffix}".casefold() in taken:
            stems.pop(0)
            if not stems:
                stems = [f"{path.parent.name}_{path.stem}_{number}"]
                number += 1
        taken.add(f"{stems[0]}{suffix}".casefold())
        names.append(stems[0] + suffix)
    return names


class Window:
    """A window for results. Raises UserError where there is none to be had (asked beforehand:
    without a display cv2 would abort the whole process)."""

    def __init__(self, title: str) -> None:
        if sys.platform.startswith("linux") and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise UserError(
                "--show needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; run "
                "without --show (results are written to files) or log in with a display (ssh -X)"
            )
        if not has_windows():
            raise UserError(
                "--show: this OpenCV is the headless build, without windows; swap it: pip "
                "uninstall -y opencv-python-headless opencv-python && pip install opencv-python"
            )
        self._title = title
        self._sized = False
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)

    def show(self, image: np.ndarray, wait_ms: int) -> bool:
        """Show RGB uint8 [H, W, 3]; wait_ms 0 = until a key. False after q, Esc or closing."""
        if not self._sized:  # as large as the first image, where a screen has room for it
            height, width = image.shape[:2]
            share = min(1.0, 1280 / width, 800 / height)
            cv2.resizeWindow(self._title, round(width * share), round(height * share))
            self._sized = True
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(wait_ms) & 0xFF
        visible = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        return visible and key not in (ord("q"), 27)

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()


def has_windows() -> bool:
    """Whether this OpenCV was built with a GUI."""
    for line in cv2.getBuildInformation().splitlines():
        word, _, value = line.strip().partition(":")
        if word == "GUI":
            return value.strip().upper() != "NONE"
    return False


@contextmanager
def one_cv2_thread(predictor: Predictor) -> Iterator[None]:
    """On the CPU, cv2's own thread pool would take cores from the model: one thread instead."""
    before = cv2.getNumThreads()
    try:
        if not predictor.on_cuda:
            cv2.setNumThreads(1)
        yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Ctrl-C is ignored while results are brought to safety (in the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Read(NamedTuple):
    """A picture as it comes from the readers: its number, and the pixels or what is wrong."""

    number: int
    image: np.ndarray | None
    fault: str | None


def _plan(predictor: Predictor, paths: Sequence[Path]) -> list[int]:
    """The pictures' numbers in the order in which batches are of one input's shape each: by their
    headers. What has none comes at the end (it is told when it is read)."""
    sizes: list[Size | None] = []
    for path in paths:
        try:
            sizes.append(image_size_of(path))
        except UserError:
            sizes.append(None)
    known = [number for number, size in enumerate(sizes) if size is not None]
    batches = predictor.plan([size for size in sizes if size is not None])
    rest = [number for number, size in enumerate(sizes) if size is None]
    return [known[row] for rows in batches for row in rows] + rest


def _read_all(
    paths: Sequence[Path], order: Sequence[int], readers: int, ahead: int, channels: int
) -> Iterator[_Read]:
    """Pictures of so many channels in order, read by a few threads, at most ``ahead`` before they
    are asked for."""

    def read(index: int) -> _Read:
        try:
            return _Read(index, read_bands(paths[index], channels), None)
        except UserError as error:
            return _Read(index, None, str(error))

    with ThreadPoolExecutor(readers, thread_name_prefix="read") as pool:
        waiting: deque[Future[_Read]] = deque()
        try:
            for index in order:
                waiting.append(pool.submit(read, index))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _Batch(NamedTuple):
    """Pictures that go through the model together, and faults met while gathering them."""

    read: list[_Read]
    faults: list[_Read]


def _batches(predictor: Predictor, pictures: Iterable[_Read]) -> Iterator[tuple[_Batch, Prepared]]:
    """Pictures gathered into batches of one input's shape, resized and ready for the model."""
    batch, shape = _Batch([], []), None
    for picture in pictures:
        if picture.image is None:
            batch.faults.append(picture)
            continue
        own = predictor.shape_of(Size(picture.image.shape[1], picture.image.shape[0]))
        if batch.read and (own != shape or len(batch.read) == predictor.batch):
            yield batch, _prepare(predictor, batch)
            batch = _Batch([], [])
        batch.read.append(picture)
        shape = own
    if batch.read or batch.faults:
        yield batch, _prepare(predictor, batch)


def _prepare(predictor: Predictor, batch: _Batch) -> Prepared:
    return predictor.prepare([read.image for read in batch.read if read.image is not None])


def report_images(
    predictor: Predictor,
    source: str | Sequence[str],
    out_dir: str | Path,
    report: Report,
    *,
    show: bool = False,
    recursive: bool = False,
) -> int:
    """Run on files, folders (recursive: and those in them) or globs; annotated pictures and result
    files go to ``out_dir``, and those of an earlier run there go.

    A picture that cannot be read is logged and the rest goes on. After Ctrl-C the files hold
    what was done. Returns the exit code: 0, or 1 when a picture could not be read. Raises
    UserError.
    """
    accept = is_image if predictor.channels == 3 else is_bands
    paths = list_images(source, recursive, accept)
    out_dir = require_writable(out_dir)
    outputs = [out_dir / name for name in output_names(paths)]
    sources = {path.resolve() for path in paths}
    if any(output.resolve() in sources for output in outputs):
        raise UserError(
            f"the results would overwrite the pictures in {out_dir}; choose another --out-dir"
        )
    earlier = [name for name in report.files if (out_dir / name).exists()]
    if earlier:
        log.info("%s: %s of an earlier run will be replaced", out_dir, ", ".join(earlier))
    window = Window("Results") if show else None
    _remove_earlier(out_dir, report, {*sources, *(output.resolve() for output in outputs)})
    run = _ImageRun(predictor, paths, outputs, report, window)
    with one_cv2_thread(predictor):
        try:
            run.go()
        finally:
            with no_interrupt():
                report.write(out_dir)
    log.info("results are in %s", out_dir)
    return run.summary()


def _remove_earlier(folder: Path, report: Report, keep: set[Path]) -> None:
    """Remove the pictures that an earlier run's JSON names and that this one does not write."""
    removed = 0
    for name in report.files:
        try:
            entries = json.loads((folder / name).read_text(encoding="utf-8"))["images"]
            named = [str(one[key]) for one in entries for key in OWN_FILES if key in one]
        except (OSError, ValueError, TypeError, KeyError):
            continue  # none, or not of ours
        for path in (folder / one for one in named):
            inside = folder.resolve() in path.resolve().parents
            if inside and path.resolve() not in keep and path.is_file():
                path.unlink()
                removed += 1
    if removed:
        log.info("%s: %d pictures of the earlier run are removed", folder, removed)


class _ImageRun:
    """The state of one run over pictures."""

    def __init__(
        self,
        predictor: Predictor,
        paths: list[Path],
        outputs: list[Path],
        report: Report,
        window: Window | None,
    ) -> None:
        self.predictor, self.paths, self.outputs = predictor, paths, outputs
        self.report, self.window = report, window
        self.faults: list[str] = []
        self.progress = Progress("images", len(paths))
        self.seconds = 0.0

    def go(self) -> None:
        """Read, infer, draw and write, all at the same time."""
        helpers = 2 if not self.predictor.on_cuda else min(8, os.cpu_count() or 2)
        order = _plan(self.predictor, self.paths) if self.window is None else range(len(self.paths))
        ahead = 2 * self.predictor.batch + helpers
        pictures = _read_all(self.paths, order, helpers, ahead, self.predictor.channels)
        batches = Ahead(_batches(self.predictor, pictures), 1, name="prepare")
        several = len(self.paths) > self.predictor.batch
        lanes = self.predictor.lanes if several else 1
        results = Ahead(self.predictor.stream(batches, lanes=lanes), 2, name="model")
        writing: deque[Future[None]] = deque()
        with ThreadPoolExecutor(helpers, thread_name_prefix="write") as pool:
            try:
                for batch, answers in results:
                    for read in batch.faults:
                        self.faults.append(read.fault or "")
                        log.warning("skipped: %s", read.fault)
                        self.progress.advance()
                    for read, result in zip(batch.read, answers):
                        assert read.image is not None
                        annotated = self._add(read.number, read.image, result)
                        writing.append(
                            pool.submit(write_image, self.outputs[read.number], annotated)
                        )
                        while len(writing) > 2 * helpers:
                            writing.popleft().result()
                while writing:
                    writing.popleft().result()
            finally:
                stop_all([batches, results])
                self.seconds = self.progress.seconds
                self.progress.close()
                if self.window is not None:
                    self.window.close()

    def _add(self, index: int, image: np.ndarray, result: Any) -> np.ndarray:
        info = {
            "id": index + 1,
            "file_name": str(self.paths[index]),
            "output": self.outputs[index].name,
        }
        annotated = self.report.add(shown_bands(image), result, info)
        self.progress.advance()
        if self.window is not None and not self.window.show(annotated, 0):
            self.window.close()
            self.window = None
        return annotated

    def summary(self) -> int:
        """Say what was done; the exit code."""
        count = len(self.report)
        log.info("%d images, %.1f images/s", count, count / max(self.seconds, 1e-9))
        if not self.faults:
            return 0
        log.warning("%d of %d images could not be read:", len(self.faults), len(self.paths))
        for fault in self.faults[:20]:
            log.warning("  %s", fault)
        if len(self.faults) > 20:
            log.warning("  and %d more", len(self.faults) - 20)
        return 1
