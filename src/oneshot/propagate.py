"""The mask of a video's first frame carried through it by the features alone.

DINO's protocol (https://github.com/facebookresearch/dino, eval_video_segmentation.py): each patch
asks the first frame and a queue of the last ones; the ``top_k`` most similar patches within a
neighbourhood give it their labels, weighed by exp(cosine / temperature). One thing differs: the
first mask goes into patches by area, not by the nearest pixel, so that borders are not rounded to
whole patches.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError
from ..core.files import write_json
from ..core.paths import output_folder
from ..core.progress import Progress
from ..core.structures import IGNORE, Size
from ..data.common.images import list_images, read_image
from ..data.masks.reader import write_mask
from ..metrics.video_segmentation import video_scores
from ..predict.capture import VideoReader
from ..predict.images import one_cv2_thread
from ..predict.predictor import Predictor
from ..predict.settings import is_video
from ..predict.video import encoder_threads
from ..visualise.overlay import mask_overlay
from ..visualise.patches import patch_predictor
from ..visualise.runs import in_groups, write_video
from .masks import label_fractions, read_mask, require_size
from .refine import refine_labels
from .settings import PropagateOptions

log = logging.getLogger(__name__)

ROWS = 1024  # patches that are compared with the context at a time: bounds the memory


@dataclass
class _Context:
    """One frame that votes: unit features [N, C] and soft labels [N, K]."""

    features: Tensor
    labels: Tensor


class Propagator:
    """Soft labels of one frame after another.

    labels: soft labels [K, h, w] of the first frame in cells, plane 0 the background, summing to
    1; patch_map: its features [C, h, w].
    """

    def __init__(
        self,
        patch_map: Tensor,
        labels: Tensor,
        *,
        top_k: int = 5,
        neighbourhood: int = 12,
        queue: int = 7,
        temperature: float = 0.1,
    ) -> None:
        self.grid = tuple(patch_map.shape[-2:])
        self.top_k, self.temperature = top_k, temperature
        self.neighbourhood = neighbourhood
        self.first = _Context(_unit(patch_map), labels.flatten(1).T.contiguous())
        self.recent: deque[_Context] = deque(maxlen=queue)

    def _near(self, start: int, stop: int) -> Tensor | None:
        """bool [stop - start, N]: which patches may vote for the patches start .. stop."""
        if not self.neighbourhood:
            return None
        h, w = self.grid
        cells = torch.arange(h * w)
        rows, columns = cells // w, cells % w
        apart_y = (rows[start:stop, None] - rows[None]).abs()
        apart_x = (columns[start:stop, None] - columns[None]).abs()
        return (apart_y <= self.neighbourhood) & (apart_x <= self.neighbourhood)

    def step(self, patch_map: Tensor) -> Tensor:
        """The next frame's features [C, h, w] -> its soft labels [K, h, w]."""
        features = _unit(patch_map)
        context = [self.first, *self.recent]
        votes = torch.cat([c.labels for c in context])
        parts = []
        for start in range(0, len(features), ROWS):
            rows = features[start : start + ROWS]
            near = self._near(start, start + len(rows))
            cosines = [rows @ c.features.T for c in context]
            if near is not None:
                cosines = [c.masked_fill(~near, float("-inf")) for c in cosines]
            best, index = torch.cat(cosines, 1).topk(min(self.top_k, len(votes)), dim=1)
            weights = (best / self.temperature).softmax(1)
            parts.append((weights[..., None] * votes[index]).sum(1))
        labels = torch.cat(parts)
        self.recent.append(_Context(features, labels))
        return labels.T.reshape(-1, *self.grid)


def frame_size(frame: np.ndarray, short: int) -> Size:
    """The size of a frame [H, W, 3] whose short side is resized to ``short``, aspect kept."""
    height, width = frame.shape[:2]
    scale = short / min(height, width)
    return Size(round(width * scale), round(height * scale))


def _unit(patch_map: Tensor) -> Tensor:
    return F.normalize(patch_map.flatten(1).T, dim=1)


def soft_labels(mask: np.ndarray, labels: list[int], patch_map: Tensor) -> Tensor:
    """Mask [H, W] -> [1 + objects, h, w] summing to 1; plane 0 is all that is no object."""
    h, w = patch_map.shape[-2:]
    objects = torch.from_numpy(label_fractions(mask, labels, h, w))
    return torch.cat([1 - objects.sum(0, keepdim=True), objects]).clamp(0, 1)


def stretch_planes(soft: Tensor) -> np.ndarray:
    """DINO's norm_mask: each plane that is not empty stretched to 0..1. [K, h, w] as it is."""
    low = soft.amin((1, 2), keepdim=True)
    high = soft.amax((1, 2), keepdim=True)
    stretched = (soft - low) / (high - low).clamp(min=1e-6)
    return torch.where(high > 0, stretched, soft).numpy()


def propagate(
    frames: Iterator[np.ndarray],
    mask: np.ndarray,
    predictor: Predictor[Tensor],
    options: PropagateOptions,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(frame uint8 [H, W, 3], labels uint8 [H, W]) for each frame; the first has ``mask``."""
    labels = [int(label) for label in np.unique(mask) if 0 < label < IGNORE]
    numbers = np.array([0, *labels], np.uint8)
    propagator: Propagator | None = None
    for group in in_groups(frames, predictor.batch):
        for frame, patch_map in zip(group, predictor.predict(group)):
            if propagator is None:
                soft = soft_labels(mask, labels, patch_map)
                propagator = Propagator(
                    patch_map,
                    soft,
                    top_k=options.top_k,
                    neighbourhood=options.neighbourhood,
                    queue=options.queue,
                    temperature=options.temperature,
                )
                yield frame, np.where(mask == IGNORE, 0, mask).astype(np.uint8)
                continue
            soft = propagator.step(patch_map)
            yield frame, numbers[refine_labels(frame, stretch_planes(soft), options.refine)]


class _Source:
    """A video file, or a folder or glob of frames: name, rate and frames."""

    def __init__(self, source: str) -> None:
        self.reader = VideoReader(source) if is_video(source) else None
        self.paths = [] if self.reader else list_images(source)
        self.first = self.reader.first_image if self.reader else read_image(self.paths[0])
        self.where = f"the first frame of {source}" if self.reader else str(self.paths[0])

    @property
    def count(self) -> int | None:
        """The number of frames, when known."""
        return self.reader.frames if self.reader else len(self.paths)

    @property
    def rate(self) -> Fraction:
        """Frames a second; of a folder of pictures DAVIS's 24."""
        return self.reader.rate if self.reader else Fraction(24)

    def frames(self, limit: int | None) -> Iterator[np.ndarray]:
        """uint8 [H, W, 3], all of one size. UserError for a frame of another."""
        images = (f.image for f in self.reader) if self.reader else map(read_image, self.paths)
        for number, image in enumerate(images):
            if limit is not None and number >= limit:
                return
            if image.shape != self.first.shape:
                raise UserError(
                    f"frame {number} of the video is {image.shape[1]}x{image.shape[0]} pixels and "
                    f"the first {self.first.shape[1]}x{self.first.shape[0]}: frames must be of "
                    "one size"
                )
            yield image


def _read_truths(folder: Path, first: np.ndarray) -> list[np.ndarray]:
    """True masks uint8 [H, W] in order; a frame without objects is all 0."""
    truths = []
    for path in list_images(folder):
        truth = read_mask(path, may_be_empty=True)
        require_size(truth, first, path, "the frames are")
        truths.append(truth)
    if len(truths) < 2:
        raise UserError(f"--truth {folder}: there is one mask; give one a frame, in order")
    return truths


def run_propagate(options: PropagateOptions) -> int:
    """The command: ``masks/00000.png`` ..., ``overlay.mp4`` and ``propagation.json`` (with J and F
    when ``--truth`` is given). Returns the exit code. Raises UserError."""
    source = _Source(options.input)
    mask = read_mask(options.mask)
    require_size(mask, source.first, options.mask, source.where)
    truths = _read_truths(options.truth, source.first) if options.truth else None
    out_dir = output_folder(options.out_dir)
    predictor = patch_predictor(options, frame_size(source.first, options.imgsz))
    done: list[np.ndarray] = []
    limits = [n for n in (source.count, options.max_frames) if n is not None]
    progress = Progress("frames", unit="frames", total=min(limits) if limits else None)

    def pictures() -> Iterator[tuple[np.ndarray, float]]:
        frames = source.frames(options.max_frames)
        for number, (frame, labels) in enumerate(propagate(frames, mask, predictor, options)):
            write_mask(out_dir / "masks" / f"{number:05}.png", labels)
            if truths is not None:
                done.append(labels)
            progress.advance()
            yield mask_overlay(frame, labels), float(number / source.rate)

    with one_cv2_thread(predictor):
        try:
            threads = encoder_threads(predictor.on_cuda)
            write_video(pictures(), out_dir / "overlay.mp4", source.rate, threads=threads)
        finally:
            progress.close()
    content: dict[str, Any] = {"input": options.input, "frames": progress.done}
    if truths is not None:
        content |= _measure(done, truths)
    write_json(out_dir / "propagation.json", content)
    fault = source.reader.fault if source.reader else None
    if fault is not None:
        log.error("%s", fault)
    return 1 if fault else 0


def _measure(done: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, Any]:
    """J and F without the first frame, which was given."""
    count = min(len(done), len(truths))
    if count < 2:
        log.warning("one frame alone, and its mask was given: nothing to measure")
        return {}
    if len(done) != len(truths):
        log.warning("%d frames and %d true masks: %d are compared", len(done), len(truths), count)
    scores = video_scores(np.stack(done[1:count]), np.stack(truths[1:count]))
    log.info("J %.3f  F %.3f  J&F %.3f", scores.j, scores.f, scores.jf)
    return {"j": scores.j, "f": scores.f, "jf": scores.jf, "objects": scores.plain_objects()}
