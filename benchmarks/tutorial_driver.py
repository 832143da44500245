"""Runs a script of the tutorial project inside a copy of it, with stopwatches around its parts.

    python -m benchmarks.tutorial_driver COPY RESULT.json IMGSZ SEED train_detection.py [its flags]

Its code is not changed. Replaced from outside: the model's resolution (it ignores --imgsz and
would resize everything to 640x640 in the model), the seed (fixed to 42 there), ``.cuda()``
(without CUDA it would stop) and OpenCV's windows (none without a display). Started by
``benchmarks.versus_tutorial``.
"""

from __future__ import annotations

import functools
import os
import random
import runpy
import sys
from pathlib import Path
from typing import Any

from benchmarks.clocks import Clock, save, watch_forwards, watch_method

ROOT = Path(__file__).resolve().parents[1]


def enter(copy: Path) -> None:
    """Work in the copy; ``src`` is the copy's from here on."""
    os.chdir(copy)
    kept = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    sys.path[:] = [str(copy), *kept]


def use_seed(seed: int) -> None:
    """Put ``seed`` where the scripts say 42."""
    import numpy as np
    import torch

    for owner in (random, np.random, torch):
        name = "manual_seed" if owner is torch else "seed"
        original = getattr(owner, name)

        def seeded(value: Any = None, *rest: Any, original: Any = original) -> Any:
            return original(seed if value == 42 else value, *rest)

        setattr(owner, name, seeded)


def use_resolution(imgsz: int, forwards: Clock) -> None:
    """Build its detectors for imgsz x imgsz, watched; without weights they start random."""
    import torch

    from src.detection import model as theirs

    assert theirs.__file__ and Path(theirs.__file__).is_relative_to(Path.cwd())
    build, load = theirs.dinov3_detection, torch.hub.load

    @functools.wraps(build)
    def at_resolution(*args: Any, **kwargs: Any) -> Any:
        model = build(*args, resolution=[imgsz, imgsz], **kwargs)
        watch_forwards(model, forwards)
        return model

    @functools.wraps(load)
    def without_download(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **kwargs, **({} if "weights" in kwargs else {"pretrained": False}))

    theirs.dinov3_detection, torch.hub.load = at_resolution, without_download


class Loops:
    """Stands for tqdm: times each pass over a loader; shuffled ones are training."""

    def __init__(self, forwards: Clock) -> None:
        self.forwards = forwards
        self.epochs: list[dict[str, float]] = []
        self.clock = Clock()

    def __call__(self, loader: Any, **_: Any) -> Any:
        from torch.utils.data import RandomSampler

        shuffled = isinstance(loader.sampler, RandomSampler)
        if shuffled:
            self.epochs.append({})
        else:
            self.forwards.reset()
        self.clock.reset()
        self.clock.start()
        return _Pass(self, loader, "train" if shuffled else "eval")

    def ended(self, name: str, images: int) -> None:
        """A pass is over."""
        if name == "train":
            self.clock.stop()
            self.epochs[-1] |= {"train_seconds": self.clock.seconds, "train_cpu": self.clock.cpu}
        self.epochs[-1][f"{name}_images"] = images

    def scored(self, update: Clock, compute: Clock, summary: Any) -> None:
        """The metric has been computed: that ends the evaluation."""
        self.clock.stop()
        self.epochs[-1] |= {
            "eval_seconds": self.clock.seconds,
            "eval_cpu": self.clock.cpu,
            "forward_seconds": self.forwards.seconds,
            "forward_cpu": self.forwards.cpu,
            "metric_seconds": update.seconds + compute.seconds,
            "mAP": float(summary["map"]),
            "mAP50": float(summary["map_50"]),
        }
        update.reset()
        compute.reset()


class _Pass:
    def __init__(self, loops: Loops, loader: Any, name: str) -> None:
        self.loops, self.loader, self.name = loops, loader, name

    def __iter__(self) -> Any:
        images = 0
        for batch in self.loader:
            images += len(batch[0])
            yield batch
        self.loops.ended(self.name, images)

    def set_description(self, *_: Any, **__: Any) -> None:
        """tqdm's."""


def train(result: Path, forwards: Clock) -> None:
    """Run train_detection.py; the figures of each epoch go to ``result``."""
    import tqdm.auto
    from torchmetrics.detection import mean_ap

    loops = Loops(forwards)
    tqdm.auto.tqdm = loops
    update, compute = Clock(), Clock()
    metric = mean_ap.MeanAveragePrecision
    watch_method(metric, "update", update)
    watch_method(metric, "compute", compute)
    # Instances wrap both methods of the class; the outermost compute tells the result.
    timed = metric.compute

    def told(self: Any) -> Any:
        summary = timed(self)
        loops.scored(update, compute, summary)
        return summary

    metric.compute = told
    runpy.run_path("train_detection.py", run_name="__main__")
    save(result, {"epochs": loops.epochs})


class _Capture:
    """cv2.VideoCapture with a clock from opening to release."""

    def __init__(self, original: Any, source: str) -> None:
        self.clock, self.frames = Clock(), 0
        self.clock.start()
        self.capture = original(source)

    def read(self) -> Any:
        done, frame = self.capture.read()
        self.frames += bool(done)
        return done, frame

    def release(self) -> None:
        self.capture.release()
        self.clock.stop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.capture, name)


def video(result: Path, forwards: Clock) -> None:
    """Run infer_det_video.py; frames a second go to ``result``."""
    import cv2
    import torch

    captures: list[_Capture] = []
    original = cv2.VideoCapture

    def opened(source: str) -> _Capture:
        captures.append(_Capture(original, source))
        return captures[-1]

    cv2.VideoCapture = opened  # type: ignore[assignment, misc]
    cv2.imshow = cv2.destroyAllWindows = lambda *_: None  # type: ignore[assignment]
    cv2.waitKey = lambda *_: -1  # type: ignore[assignment]
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[assignment, method-assign]
    runpy.run_path("infer_det_video.py", run_name="__main__")
    (capture,) = captures
    save(
        result,
        {
            "frames": capture.frames,
            "seconds": capture.clock.seconds,
            "cpu": capture.clock.cpu,
            "forward_seconds": forwards.seconds,
            "alone_seconds": forwards.seconds,  # nothing else runs beside its model
            "alone_cpu": forwards.cpu,
        },
    )


def main() -> None:
    """The command line (see above)."""
    copy, result, imgsz, seed, script, *flags = sys.argv[1:]
    destination = Path(result).resolve()
    enter(Path(copy).resolve())
    sys.argv = [script, *flags]
    forwards = Clock()
    use_seed(int(seed))
    use_resolution(int(imgsz), forwards)
    {"train_detection.py": train, "infer_det_video.py": video}[script](destination, forwards)


if __name__ == "__main__":
    main()
