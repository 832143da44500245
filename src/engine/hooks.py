"""What happens after an epoch on the main process, beside the checkpoint and the CSV."""

from __future__ import annotations

import logging

from .history import History

log = logging.getLogger(__name__)


class TensorBoardHook:
    """Writes the columns of each epoch as TensorBoard scalars under ``tensorboard/``."""

    def __init__(self, history: History) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("TensorBoard is not installed (pip install tensorboard): no events written")
            self.writer = None
            return
        # A resumed run hides what a killed one wrote of the epochs that come again.
        self.writer = SummaryWriter(
            str(history.run_dir / "tensorboard"), purge_step=len(history.rows) + 1
        )

    def __call__(self, history: History) -> None:
        if self.writer is None:
            return
        row = history.last
        for name, value in row.items():
            if name != "epoch":
                group = "train" if name.startswith(("loss", "lr", "images", "seconds")) else "valid"
                self.writer.add_scalar(f"{group}/{name}", value, int(row["epoch"]))
        self.writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        if self.writer is not None:
            self.writer.close()
