"""Ultralytics' trainer for fused and distilled networks; its processes import it by name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils import RANK
from ultralytics.utils.patches import torch_load

from .distill import DistilledModel, plain_model
from .graph import plain_graph
from .transfer import context_of, take_weights


class FusionTrainer(DetectionTrainer):
    """``YOLO(graph).train(trainer=FusionTrainer, ...)``.

    train_ms: milliseconds an image of the epochs' training part so far: of the processor on a CPU
    (all threads together), of the clock on a GPU.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.train_seconds, self.train_images = 0.0, 0
        self.add_callback("on_train_epoch_start", _start_clock)
        self.add_callback("on_train_epoch_end", _stop_clock)

    @property
    def train_ms(self) -> float:
        """See the class."""
        return 1000 * self.train_seconds / max(1, self.train_images)

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """From a graph (a path or a dictionary) and the weights of a plain or fused network.

        A fused network without weights starts as the plain one of the same seed does.
        """
        graph = cfg if isinstance(cfg, dict) else yaml_model_load(cfg)
        kind = DistilledModel if "distill" in graph else DetectionModel
        sizes = {"nc": self.data["nc"], "ch": self.data["channels"]}
        torch.manual_seed(self.args.seed)
        model = kind(graph, **sizes, verbose=verbose and RANK == -1)
        self.set_model_names_for_load(model)
        if weights is None and context_of(model) is not None:
            torch.manual_seed(self.args.seed)
            weights = DetectionModel(plain_graph(graph["yolo"]), **sizes, verbose=False)
        if weights is not None:
            take_weights(model, weights)
        return model

    def final_eval(self) -> None:
        """Distilled networks become plain ones, then as ultralytics'."""
        if RANK in {-1, 0}:
            for path in (self.last, self.best):
                _make_plain(path)
        super().final_eval()


def _make_plain(path: Path) -> None:
    if not path.exists():
        return
    content = torch_load(path, map_location="cpu")
    if isinstance(content.get("ema"), DistilledModel):
        content["ema"] = plain_model(content["ema"])
        torch.save(content, path)


def _clock(trainer: Any) -> float:
    return time.process_time() if trainer.device.type == "cpu" else time.perf_counter()


def _start_clock(trainer: Any) -> None:
    trainer.train_seconds -= _clock(trainer)


def _stop_clock(trainer: Any) -> None:
    trainer.train_seconds += _clock(trainer)
    trainer.train_images += len(trainer.train_loader.dataset)
