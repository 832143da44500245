"""``train_segmentation.py``: from images and masks to a trained segmenter in outputs/<out-dir>/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .settings import TrainSegmentation

if TYPE_CHECKING:
    from ..engine.history import History, Hook


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from ..core import cli

    cli.run(lambda: train(cli.parse(TrainSegmentation, argv, "train_segmentation.py")) and None)


def train(options: TrainSegmentation, hooks: Sequence[Hook] = ()) -> History:
    """Train as the options say; UserError for anything the user can mend. hooks: called with the
    History after each epoch."""
    from .train_objects import InstanceTask, PanopticTask
    from .train_semantic import SegmentationTask

    kinds = {"semantic": SegmentationTask, "instance": InstanceTask, "panoptic": PanopticTask}
    return kinds[options.task](options, hooks).train()
