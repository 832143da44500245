"""Inference on video: decoding, inference, drawing and encoding all at the same time."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from fractions import Fraction
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np

from ..core.errors import UserError
from ..core.files import atomic_path, require_writable
from ..core.progress import Progress
from ..core.structures import Size
from .capture import Frame, VideoReader
from .images import Window, no_interrupt, one_cv2_thread
from .predictor import Predictor, Prepared
from .results import Made, Report
from .threads import Ahead, Stopwatch, stop_all

log = logging.getLogger(__name__)

CRF = 21  # x264's quality: 18 looks like the source, 23 is its default


_OPTIONS = {
    "libx264": {"preset": "superfast", "crf": str(CRF)},
    "h264_nvenc": {"preset": "p4", "rc": "vbr", "cq": str(CRF)},
}


class _Encoder(Protocol):
    def encode(self, image: np.ndarray, seconds: float | None) -> None: ...
    def finish(self) -> None: ...


class _H264:
    """H.264 by PyAV in an .mp4 that browsers play and start at once (+faststart).

    codec: libx264, or h264_nvenc (an NVIDIA GPU's own encoder).
    """

    def __init__(
        self, path: Path, size: Size, rate: Fraction, timed: bool, threads: int, codec: str
    ) -> None:
        import av

        self._av = av
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        # The colours are converted by BT.601 below; players of HD would assume BT.709.
        options = {**_OPTIONS[codec], "colorspace": "smpte170m"}
        self._stream = cast(Any, self._container.add_stream(codec, rate=rate, options=options))
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.thread_count = threads
        self._base = Fraction(1, 1000) if timed else 1 / rate
        self._stream.codec_context.time_base = self._base
        self._timed = timed
        self._stamp = -1

    def encode(self, image: np.ndarray, seconds: float | None) -> None:
        planes: Any = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
        frame = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        wanted = round(seconds * 1000) if self._timed and seconds is not None else 0
        self._stamp = max(self._stamp + 1, wanted)
        frame.pts, frame.time_base = self._stamp, self._base
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


class _Mp4v:
    """MPEG-4 by OpenCV: always there, larger, and not played by browsers."""

    def __init__(self, path: Path, size: Size, rate: Fraction) -> None:
        code = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
        self._writer = cv2.VideoWriter(str(path), code, float(rate), size)
        if not self._writer.isOpened():
            raise UserError(f"OpenCV cannot write a video to {path.parent}")

    def encode(self, image: np.ndarray, seconds: float | None) -> None:
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def finish(self) -> None:
        self._writer.release()


def has_h264() -> bool:
    """Whether PyAV with libx264 is installed."""
    try:
        import av
    except ImportError:
        return False
    return "libx264" in av.codecs_available


def choose_codec(size: Size, on_cuda: bool) -> str:
    """``h264_nvenc`` where PyAV has it and the GPU takes a frame of this size, else ``libx264``."""
    import av

    if on_cuda and "h264_nvenc" in av.codecs_available:
        try:
            context: Any = av.CodecContext.create("h264_nvenc", "w")
            context.width, context.height = size
            context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 25)
            context.encode(av.VideoFrame(*size, "yuv420p"))
            context.encode(None)
            return "h264_nvenc"
        except Exception as error:  # no such unit, its driver too old, too many streams
            log.info("the GPU does not encode (%s)", error)
    return "libx264"


class VideoWriter:
    """Writes RGB frames to an .mp4 in a thread of its own; the file appears whole at ``close``.

    H.264 through PyAV, by the GPU where ``on_cuda`` and it can, else (a log line says so) mp4v
    through OpenCV; ``codec`` says which. size: of the video (None: of the first frame); rate:
    frames a second; timed: the frames come with their times instead (a camera). Odd sides grow by
    one pixel. A failure of the encoder (a full disk) is raised by the next ``write`` or by
    ``close``, as a UserError; nothing waits for ever.
    """

    def __init__(
        self,
        path: str | Path,
        size: Size | None,
        rate: Fraction,
        *,
        timed: bool = False,
        threads: int = 0,
        h264: bool | None = None,
        on_cuda: bool = False,
    ) -> None:
        self.path = Path(path)
        self.count = 0
        self.codec = ""
        self._closed = False
        self._error: Exception | None = None
        self._queue: queue.Queue[tuple[np.ndarray, float | None] | None] = queue.Queue(8)
        self._file = ExitStack()
        self._temporary = self._file.enter_context(atomic_path(self.path))
        self._encoder: _Encoder | None = None
        self._how = rate, timed, threads, h264, on_cuda
        if size is not None:
            self._open(size)
        self._thread = threading.Thread(target=self._run, name="encode", daemon=True)
        self._thread.start()

    def _open(self, size: Size) -> None:
        rate, timed, threads, h264, on_cuda = self._how
        self._size = Size(size[0] + size[0] % 2, size[1] + size[1] % 2)
        try:
            if has_h264() if h264 is None else h264:
                self.codec = choose_codec(self._size, on_cuda)
                h264_of = self._temporary, self._size, rate, timed, threads, self.codec
                self._encoder = _H264(*h264_of)
            else:
                log.info("writing mp4v, which browsers do not play; for H.264: pip install av")
                self.codec = "mp4v"
                self._encoder = _Mp4v(self._temporary, self._size, rate)
        except Exception as error:
            self._give_up(error)

    def _run(self) -> None:
        """Encode until the None; after a failure go on emptying the queue, so none waits."""
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    assert self._encoder is not None
                    self._encoder.encode(self._even(item[0]), item[1])
                except Exception as error:  # noqa: BLE001 - raised again by write or close
                    self._error = error
        try:
            if self._encoder is not None:
                self._encoder.finish()
        except Exception as error:  # noqa: BLE001 - raised again by close
            self._error = self._error or error

    def _even(self, image: np.ndarray) -> np.ndarray:
        """The image in the video's size: a pixel more for odd sides, resized if it changed."""
        right, bottom = self._size.width - image.shape[1], self._size.height - image.shape[0]
        if (right, bottom) == (0, 0):
            return image
        if right in (0, 1) and bottom in (0, 1):
            return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        return cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)

    def _give_up(self, error: Exception) -> None:
        """Remove the temporary file and raise a UserError for what the encoder met."""
        try:
            with self._file:
                raise error
        except UserError:
            raise
        except Exception as other:
            raise UserError(f"cannot write the video {self.path}: {other}") from other

    def write(self, image: np.ndarray, seconds: float | None = None) -> None:
        """Hand over a frame, uint8 [H, W, 3] RGB, not changed afterwards; seconds: its time."""
        assert not self._closed
        if self._encoder is None:
            self._open(Size(image.shape[1], image.shape[0]))
        if self._error is None:
            self._queue.put((image, seconds))
            self.count += 1
        if self._error is not None:
            self.close()

    def close(self) -> None:
        """Finish the file and give it its name (no frame: no file). Raises UserError."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            self.count = 0
            self._give_up(error)
        if self.count == 0:
            with suppress(_NoFrame), self._file:
                raise _NoFrame
        self._file.close()


class _NoFrame(Exception):
    """Ends a video that was never begun: its temporary file goes."""


Frames = list[tuple[Frame, bool]]  # and whether the model looks at it


def _batches(
    predictor: Predictor, frames: Iterable[Frame], batch: int, every: int
) -> Iterator[tuple[Frames, Prepared]]:
    """Frames in groups, the first of every ``every`` prepared for the model."""
    iterator = ((frame, number % every == 0) for number, frame in enumerate(frames))
    while group := list(islice(iterator, batch)):
        yield group, predictor.prepare([frame.image for frame, is_key in group if is_key])


def report_video(
    predictor: Predictor,
    source: str,
    out_dir: str | Path,
    report: Report,
    *,
    show: bool = False,
    max_frames: int | None = None,
    batch: int | None = None,
    every: int = 1,
) -> int:
    """Run on a video file, camera or stream; ``<name>.mp4`` and its result files, ``<name>_...``,
    go to ``out_dir`` (see ``claim_name``).

    batch: frames the model takes at once (default: the predictor's; live sources: 1, and frames
    it has no time for are left out); every: the model looks at every so many frames alone, of the
    others the report says what it has of them (``Report.follow``). After Ctrl-C, or q in the
    window, the video and the files hold what was done. image_id in the result files is the
    frame's number, from 0. Returns the exit code: 0, or 1 when the file breaks off. Raises
    UserError.
    """
    if predictor.channels != 3:
        raise UserError(f"a video has three channels, and the model wants {predictor.channels}")
    window = Window("Results") if show else None
    reader = VideoReader(source)
    out_dir = require_writable(out_dir)
    path = out_dir / f"{claim_name(out_dir, source, reader.name)}.mp4"
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise UserError(f"the result would overwrite {source}; choose another --out-dir")
    run = _VideoRun(predictor, reader, report, window)
    with one_cv2_thread(predictor):
        batch = 1 if reader.live else batch or predictor.batch
        if every > 1 and not reader.live:
            batch = max(every, batch // every * every)
        run.go(path, max_frames, batch, every)
    return run.summary(path)


def claim_name(folder: Path, source: str, stem: str) -> str:
    """The name of a source's results: its stem, unless results of another source bear it.

    ``<name>_source.txt`` beside the results says whose they are, so that the same video finds its
    name again; a namesake from elsewhere is called after its folder as well, or numbered.
    """
    path = Path(source)
    whole = str(path.resolve()) if path.exists() else source
    parent = path.resolve().parent.name if path.exists() else ""
    second = f"{parent}_{stem}" if parent else f"{stem}_2"
    for name in chain((stem, second), (f"{second}_{i}" for i in count(2))):
        note = folder / f"{name}_source.txt"
        try:
            with note.open("x", encoding="utf-8") as file:
                file.write(whole + "\n")
        except FileExistsError:
            if note.read_text(encoding="utf-8").strip() != whole:
                continue
        except OSError as error:
            raise UserError(f"cannot write {note}: {error.strerror or error}") from None
        if name != stem:
            log.info("%s holds results of another '%s': these are called %s", folder, stem, name)
        return name
    raise AssertionError("unreachable")


class _VideoRun:
    """The state of one run over a video: threads decode, prepare, infer and encode; the main
    thread has the frames drawn by a pool, shows and counts them in their order."""

    def __init__(
        self,
        predictor: Predictor,
        reader: VideoReader,
        report: Report,
        window: Window | None,
    ) -> None:
        self.predictor, self.reader = predictor, reader
        self.report, self.window = report, window
        self.model_time, self.prepare_time = Stopwatch(), Stopwatch()
        self.seconds = 0.0

    def go(self, path: Path, max_frames: int | None, batch: int, every: int) -> None:
        """The whole run; what was done is brought to safety whatever happens."""
        reader, predictor = self.reader, self.predictor
        self.report.stem = path.stem
        if predictor.on_cuda:  # the first batch costs seconds: not part of the rates
            predictor.predict([reader.first_image] * max(1, batch // every))
        writer = VideoWriter(
            path,
            None,  # as large as what is drawn
            reader.rate,
            timed=not reader.steady,
            threads=encoder_threads(predictor.on_cuda),
            on_cuda=predictor.on_cuda,
        )
        frames: Ahead[Frame] = Ahead(
            islice(reader, max_frames),
            1 if reader.live else 2 * batch,
            newest=reader.live,
            name="decode",
        )
        stages: list[Ahead] = [frames]
        try:
            prepared = self.prepare_time.work(
                _batches(predictor, self.prepare_time.pause(frames), batch, every)
            )
            batches = Ahead(prepared, 1, name="prepare")
            stages.append(batches)
            results = predictor.stream(
                self.model_time.pause(batches),
                ahead=predictor.on_cuda and not reader.live,
                lanes=1 if reader.live else predictor.lanes,
            )
            stages.append(Ahead(self.model_time.work(results), 2, name="model"))
            self._draw_all(stages[-1], writer, _total(reader.frames, max_frames))
        except BaseException:
            with no_interrupt():
                self._stop(stages)
                self._save_rest(writer, path)
            raise
        with no_interrupt():
            self._stop(stages)
            writer.close()
            self.report.write(path.parent, f"{path.stem}_")

    def _draw_all(
        self,
        results: Iterable[tuple[Frames, list[Any]]],
        writer: VideoWriter,
        total: int | None,
    ) -> None:
        progress = Progress("frames", unit="frames", total=total)
        threads = drawing_threads(self.predictor.on_cuda)
        ahead = 0 if self.reader.live else 2 * threads
        pool = ThreadPoolExecutor(threads, "draw")
        drawing: deque[tuple[Frame, Future[Made]]] = deque()

        def finish() -> bool:
            """The oldest frame into the files; False when the user has seen enough."""
            frame, made = drawing.popleft()
            annotated = self.report.keep(made.result())
            writer.write(annotated, frame.seconds)
            if writer.count == 1:
                log.info("decoding by OpenCV (%s), encoding by %s", self.reader.codec, writer.codec)
            progress.advance()
            return self.window is None or self.window.show(annotated, 1)

        try:
            for frames, answers in results:
                of_keys = iter(answers)
                for frame, is_key in frames:
                    found = next(of_keys) if is_key else None
                    size = Size(frame.image.shape[1], frame.image.shape[0])
                    result = self.report.follow(found, frame.seconds, size)
                    info = self._info(frame) | ({} if is_key else {"held": True})
                    made = pool.submit(self.report.make, frame.image, result, info)
                    drawing.append((frame, made))
                while len(drawing) > ahead:
                    if not finish():
                        return
            while drawing and finish():
                pass
        except BaseException:
            with suppress(Exception), no_interrupt():  # what the model had done is kept
                while drawing:
                    finish()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self.seconds = progress.seconds
            progress.close()

    def _info(self, frame: Frame) -> dict[str, Any]:
        return {
            "id": frame.number,
            "file_name": Path(self.reader.source).name,
            "frame": frame.number,
            "seconds": round(frame.seconds, 3),
        }

    def _stop(self, stages: list[Ahead]) -> None:
        if not stop_all(stages):
            log.warning("%s does not answer; it is left to itself", self.reader.source)
        if self.window is not None:
            self.window.close()

    def _save_rest(self, writer: VideoWriter, path: Path) -> None:
        """After an error: keep what was done; a second error is told, not raised."""
        for save in (writer.close, lambda: self.report.write(path.parent, f"{path.stem}_")):
            try:
                save()
            except UserError as error:
                log.error("%s", error)
        if len(self.report):
            log.info("%d frames were done; they are in %s", len(self.report), path.parent)

    def summary(self, path: Path) -> int:
        """Say what was done; the exit code."""
        count = len(self.report)
        busy = self.model_time.seconds + self.prepare_time.seconds
        log.info(
            "%d frames in %.1f s: %.1f FPS; the model alone (resize, forward, results): %.1f FPS",
            count,
            self.seconds,
            count / max(self.seconds, 1e-9),
            count / max(busy, 1e-9),
        )
        names = [path.name, *(f"{path.stem}_{name}" for name in self.report.files)]
        log.info("results are in %s: %s", path.parent, ", ".join(names))
        if self.reader.fault is not None:
            log.error("%s", self.reader.fault)
            return 1
        return 0


def drawing_threads(on_cuda: bool) -> int:
    """One beside a model that runs on the same cores; a GPU's frames come faster than it draws."""
    return max(1, min(4, (os.cpu_count() or 1) // 2)) if on_cuda else 1


def encoder_threads(on_cuda: bool) -> int:
    """x264's threads: few beside a model that runs on the same cores."""
    cores = os.cpu_count() or 1
    return min(8, cores) if on_cuda else max(1, cores // 4)


def _total(frames: int | None, max_frames: int | None) -> int | None:
    known = [count for count in (frames, max_frames) if count is not None]
    return min(known) if known else None
