"""The results of several models on one picture, and in one file.

``multi.json``: ``models`` (name, task, checkpoint, classes) and ``images``, one an image or frame:
id, file_name, width, height and ``results``, by the models' names what each task's result says
(``predict.result.Result.to_dict``); with --save-arrays ``arrays``, the files beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import atomic_path, write_json
from ..core.structures import Size
from .result import Result
from .results import Made, Report, beside
from .tracking import BoxTracker


class JointReport(Report):
    """Draws and gathers the answers of a ``joint.JointPredictor``.

    results: name -> (image, answer) -> the task's Result; about: what the file says of each model;
    shown: names of those that are drawn, by their layers: areas, boxes, words, and beside them
    depth; trackers: of the boxes of a video, by name.
    """

    files: tuple[str, ...] = ("multi.json",)

    def __init__(
        self,
        results: Mapping[str, Callable[[Any, Any], Result]],
        about: Sequence[dict[str, Any]],
        shown: Sequence[str],
        trackers: Mapping[str, BoxTracker] | None = None,
    ) -> None:
        super().__init__()
        self._trackers = dict(trackers or {})
        self._results, self._about, self._shown = dict(results), list(about), set(shown)

    def follow(self, result: Any, seconds: float, size: Size) -> Any:
        """See Report: boxes are tracked where there is a tracker by the model's name."""
        held = list(super().follow(result, seconds, size))
        for place, name in enumerate(self._results):
            if name in self._trackers:
                own = None if result is None else result[place]
                held[place] = self._trackers[name].follow(own, seconds, size)
        return held

    def make(self, image: np.ndarray, result: Any, info: dict[str, Any]) -> Made:
        """result: the models' answers, in their order."""
        made = zip(self._results.items(), result)
        found = {name: result_of(image, answer) for (name, result_of), answer in made}
        canvas = image
        for name in sorted(self._shown & set(found), key=lambda name: found[name].layer):
            canvas = found[name].draw_over(canvas)
        entry = {**info, "width": image.shape[1], "height": image.shape[0]}
        if self.arrays is not None:
            entry["arrays"] = {name: self._save(name, one, info) for name, one in found.items()}
        entry["results"] = {name: one.to_dict() for name, one in found.items()}
        return Made(entry, canvas)

    def _save(self, name: str, found: Result, info: dict[str, Any]) -> str:
        assert self.arrays is not None
        output = str(info.get("output", f"{self.stem}_{info.get('frame', 0):06d}"))
        file = beside("arrays", f"{Path(output).stem}_{name}.npz", self._arrays_taken, ".npz")
        with atomic_path(self.arrays / file) as temporary, open(temporary, "wb") as out:
            np.savez_compressed(out, **found.arrays())  # type: ignore[arg-type]
        return file

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Write ``multi.json``."""
        self.entries.sort(key=lambda image: image["id"])  # they come by the shape of their input
        content = {"models": self._about, "images": self.entries}
        write_json(Path(folder) / f"{prefix}{self.files[0]}", content)
