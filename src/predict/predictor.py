"""A model with everything around it: resize, upload, forward, download, original pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.batching import FeatureModel, equal_rows
from ..core.errors import UserError
from ..core.structures import Geometry, ResizeMode, Size
from ..data.common import images as data_images
from ..data.common.shapes import fix_shapes
from ..engine.precision import (
    arithmetic,
    backbone_of,
    choose_batch,
    choose_device,
    choose_type,
    lower_weights,
)

R = TypeVar("R")
T = TypeVar("T")


@dataclass
class Prepared:
    """A resized batch on the host, ready to go: pixels uint8 HWC, one image after another (of
    other than three channels float32)."""

    pixels: Tensor
    geometries: list[Geometry]
    channels: int = 3

    def __len__(self) -> int:
        return len(self.geometries)

    def views(self, pixels: Tensor) -> list[Tensor]:
        """The images as [C, H, W] views of the pixels (channels last in memory)."""
        sizes = [geometry.resized for geometry in self.geometries]
        parts = pixels.split([size.width * size.height * self.channels for size in sizes])
        return [
            part.view(size.height, size.width, self.channels).permute(2, 0, 1)
            for part, size in zip(parts, sizes)
        ]


@dataclass
class Pending:
    """A batch that was submitted: results that may still be on their way to the host."""

    results: list[Any]
    geometries: list[Geometry]
    done: Any = None  # torch.cuda.Event after the copies
    fill: Callable[[], list[Any]] | None = None


class Predictor(Generic[R]):
    """Runs a model on images of any size; generic over tasks.

    model: takes a list of uint8 tensors [3, H, W] of mixed sizes (it normalises and pads by
    itself) and answers one result for each (a tensor, or dicts, lists, tuples of them), in the
    pixels of the tensor handed in. image_size, resize: what ``data.images.resize`` takes.
    postprocess(result, geometry): puts a result (on the CPU) into original pixels (boxes:
    ``results.rescale_detections``); ``dino_stack.load`` knows it for a checkpoint; on_device
    does a part of that before the download (a map of classes instead of a score for each).
    resize None: the model gets images as they are.
    precision: see ``engine.precision``. The model is moved, put in eval mode, and its weights are
    lowered to the precision's type. Raises UserError for a device or precision that is not there.
    """

    def __init__(
        self,
        model: nn.Module,
        image_size: Size,
        resize: ResizeMode | None,
        *,
        postprocess: Callable[[Any, Geometry], R],
        device: Literal["auto", "cpu", "cuda"] | str = "auto",
        precision: Literal["auto", "32", "16", "bf16"] = "auto",
        batch: int | None = None,
        on_device: Callable[[Any, Geometry], Any] | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.dtype = choose_type(precision, self.device, backbone_of(model))
        self.image_size = Size(*image_size)
        self.resize: ResizeMode | None = resize
        self.batch = choose_batch(batch, self.device)
        self._postprocess = postprocess
        self._on_device = on_device
        self.model = model.eval().to(self.device)
        lower_weights(model, self.dtype)
        self._inner = next((m for m in model.modules() if isinstance(m, FeatureModel)), None)
        if self._inner is not None and resize is not None:
            fix_shapes(self._inner, self.image_size, resize, self.device)
        # A model may have two halves (as a Detector): the second where the results have arrived.
        self._start: Callable[..., Any] = getattr(self.model, "start", self.model)
        self._finish: Callable[[Any], Any] = getattr(self.model, "finish", lambda result: result)
        if self.on_cuda:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def channels(self) -> int:
        """Channels of the images that the model takes."""
        backbone = getattr(self._inner, "backbone", None)
        return 3 if backbone is None else len(backbone.mean)

    @property
    def on_cuda(self) -> bool:
        """Whether the model runs on a CUDA device."""
        return self.device.type == "cuda"

    def prepare(self, images: Sequence[np.ndarray]) -> Prepared:
        """Resize images (RGB uint8 [H, W, 3]) into one host buffer; touches no GPU work."""
        resized, geometries = [], []
        for image in images:
            assert image.ndim == 3 and image.shape[2] == self.channels, image.shape
            assert image.dtype == (np.uint8 if self.channels == 3 else np.float32), image.dtype
            own = Size(image.shape[1], image.shape[0])
            small, geometry = image, Geometry(own, own)
            if self.resize is not None:
                small, geometry = data_images.resize(image, self.image_size, self.resize)
            resized.append(small)
            geometries.append(geometry)
        total = sum(small.size for small in resized)
        dtype = torch.uint8 if self.channels == 3 else torch.float32
        pixels = torch.empty(total, dtype=dtype, pin_memory=self.on_cuda)
        flat = pixels.numpy()
        start = 0
        for small in resized:
            flat[start : start + small.size].reshape(small.shape)[...] = small
            start += small.size
        return Prepared(pixels, geometries, self.channels)

    def submit(self, images: Sequence[np.ndarray] | Prepared) -> Pending:
        """Start a batch: upload, forward, results on their way back. On CUDA it does not wait
        (beyond where the model itself does); on the CPU the work is done here."""
        batch = self.prepare(images) if isinstance(images, Sequence) else images
        if not len(batch):
            return Pending([], [])
        try:
            with torch.inference_mode(), arithmetic(self.dtype, self.device):
                results = self.run(batch)
                if not self.on_cuda:
                    return Pending(results, batch.geometries)
                fill = _start_download(results)
                done = torch.cuda.Event()
                done.record()
                return Pending([], batch.geometries, done, fill)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the GPU is out of memory for {len(batch)} images of {self.image_size.width}x"
                f"{self.image_size.height}; lower --batch or --imgsz"
            ) from None

    def run(self, batch: Prepared) -> list[Any]:
        """Results of a prepared batch on the device; ``finish`` takes them when they have come."""
        pixels = batch.pixels.to(self.device, non_blocking=True)
        return self.answers(batch.views(pixels), batch.geometries)

    def answers(self, images: Sequence[Tensor], geometries: Sequence[Geometry]) -> list[Any]:
        """The same of resized images [3, H, W] on the device."""
        results = self._start(images)
        assert len(results) == len(images), "one result for each image"
        if self._on_device is None:
            return list(results)
        return [self._on_device(one, geometry) for one, geometry in zip(results, geometries)]

    def finish(self, result: Any, geometry: Geometry) -> R:
        """A result on the CPU, put into original pixels."""
        return self._postprocess(self._finish(result), geometry)

    def collect(self, pending: Pending) -> list[R]:
        """Wait for a submitted batch (one synchronisation) and put it into original pixels."""
        if pending.fill is not None:
            pending.done.synchronize()
            results = pending.fill()
        else:  # clones are ordinary tensors, which the caller may change in place
            leaves = [leaf.clone() for leaf in _leaves(pending.results)]
            results = _rebuild(pending.results, iter(leaves))
        with torch.no_grad():
            return [
                self.finish(result, geometry)
                for result, geometry in zip(results, pending.geometries)
            ]

    @property
    def lanes(self) -> int:
        """How many batches ``stream`` may take at once: on the CPU up to four, on CUDA one, and one
        of an exported model, whose runtime has threads of its own."""
        alone = self.on_cuda or (self._inner is not None and self._inner.elsewhere)
        return 1 if alone else min(4, torch.get_num_threads())

    def stream(
        self, batches: Iterable[tuple[T, Prepared]], *, ahead: bool | None = None, lanes: int = 1
    ) -> Iterator[tuple[T, list[R]]]:
        """Batches, each with something to know it by, through the model in their order.

        ahead: submit a batch before the one before it is collected, so that the GPU never
        waits (default: on CUDA; on the CPU it would only delay results). lanes: on the CPU, so
        many batches side by side, the cores shared out among them: threads that share a batch
        wait for each other at every layer, and most where decoding and encoding share the cores.
        """
        if lanes > 1:
            yield from self._side_by_side(batches, lanes)
            return
        ahead = self.on_cuda if ahead is None else ahead
        waiting: tuple[T, Pending] | None = None
        for tag, batch in batches:
            pending = self.submit(batch)
            if waiting is not None:
                yield waiting[0], self.collect(waiting[1])
            waiting = (tag, pending)
            if not ahead:
                yield tag, self.collect(pending)
                waiting = None
        if waiting is not None:
            yield waiting[0], self.collect(waiting[1])

    def _whole(self, batch: Prepared) -> list[R]:
        return self.collect(self.submit(batch))

    def _side_by_side(
        self, batches: Iterable[tuple[T, Prepared]], lanes: int
    ) -> Iterator[tuple[T, list[R]]]:
        threads = torch.get_num_threads()
        share = max(1, threads // lanes)
        waiting: deque[tuple[T, Future[list[R]]]] = deque()
        # The number of threads is each thread's own, once it has asked for it.
        with ThreadPoolExecutor(lanes, "model", torch.set_num_threads, (share,)) as pool:
            try:
                for tag, batch in batches:
                    waiting.append(
                        (tag, pool.submit(lambda b: self.collect(self.submit(b)), batch))
                    )
                    if len(waiting) > lanes:
                        done, future = waiting.popleft()
                        yield done, future.result()
                while waiting:
                    done, future = waiting.popleft()
                    yield done, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()
                torch.set_num_threads(threads)

    def shape_of(self, original: Size) -> tuple[int, int]:
        """(H, W) that an image of this size is padded to; the same for all where nothing says."""
        if self._inner is None:
            return self.image_size.height, self.image_size.width
        size = original
        if self.resize is not None:
            size = data_images.fitted_size(original, self.image_size, self.resize)
        return self._inner.canvas(size.height, size.width)

    def plan(self, originals: Sequence[Size]) -> list[list[int]]:
        """Images of these sizes in batches of one input's shape each, by their places."""
        groups = equal_rows([self.shape_of(size) for size in originals])
        return [
            rows[i : i + self.batch] for rows in groups for i in range(0, len(rows), self.batch)
        ]

    def predict(self, images: Sequence[np.ndarray]) -> list[R]:
        """One result for each image (RGB uint8 [H, W, 3], any number, mixed sizes), in the
        pixels of the original images, on the CPU."""
        plan = self.plan([Size(image.shape[1], image.shape[0]) for image in images])
        batches = ((rows, self.prepare([images[row] for row in rows])) for rows in plan)
        found = {
            row: result
            for rows, results in self.stream(batches)
            for row, result in zip(rows, results)
        }
        return [found[row] for row in range(len(images))]


def _leaves(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from _leaves(value)


def _rebuild(tree: Any, leaves: Iterator[Tensor]) -> Any:
    """The tree with its tensors replaced by the next leaves."""
    if isinstance(tree, Tensor):
        return next(leaves)
    if isinstance(tree, Mapping):
        return {key: _rebuild(value, leaves) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_rebuild(value, leaves) for value in tree]
    return tree


def to_host(results: list[Any]) -> list[Any]:
    """Results on the CPU: the one wait of a batch, and one copy for each dtype."""
    device = next(_leaves(results)).device
    if device.type != "cuda":
        return results
    fill = _start_download(results)
    torch.cuda.current_stream(device).synchronize()
    return fill()


def _start_download(results: list[Any]) -> Callable[[], list[Any]]:
    """Start one copy to pinned memory for each dtype; the answer unpacks it when it is there."""
    leaves = list(_leaves(results))
    groups: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for index, leaf in enumerate(leaves):
        groups.setdefault((leaf.dtype, leaf.device), []).append(index)
    packs: list[tuple[list[int], Tensor]] = []
    for (dtype, _), indices in groups.items():
        flat = torch.cat([leaves[i].detach().reshape(-1) for i in indices])
        host = torch.empty(flat.shape, dtype=dtype, pin_memory=flat.is_cuda)
        host.copy_(flat, non_blocking=True)
        packs.append((indices, host))

    def fill() -> list[Any]:
        arrived: dict[int, Tensor] = {}
        for indices, host in packs:
            for i, part in zip(indices, host.split([leaves[i].numel() for i in indices])):
                arrived[i] = part.view(leaves[i].shape).clone()
        return _rebuild(results, iter([arrived[i] for i in range(len(leaves))]))

    return fill
