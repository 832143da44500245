"""What each epoch brought: rows of plain numbers, as CSV and for the hooks."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.files import write_text


@dataclass
class History:
    """One row an epoch: ``epoch`` (from 1), ``loss`` and its terms (``loss_<term>``), ``lr``,
    ``images_per_second``, ``seconds``, and the metrics of validation by their names."""

    run_dir: Path
    best_metric: str
    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_value: float | None = None

    @property
    def last(self) -> dict[str, float]:
        """The newest row."""
        return self.rows[-1]

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """(epochs, values) of a column, where it has values."""
        rows = [row for row in self.rows if name in row]
        return [int(row["epoch"]) for row in rows], [row[name] for row in rows]

    def columns(self) -> list[str]:
        """Every column, in the order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def add(self, row: dict[str, float], value: float | None) -> bool:
        """Append a row; whether ``value`` (higher is better) makes it the best so far."""
        self.rows.append(row)
        if value is None:
            return False
        worse = self.best_value is not None and not (
            value > self.best_value or self.best_value != self.best_value
        )
        if worse:
            return False
        self.best_epoch, self.best_value = int(row["epoch"]), value
        return True

    def write_csv(self) -> None:
        """``history.csv`` in the run folder, atomically."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns(), lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: f"{value:.7g}" for name, value in row.items()})
        write_text(self.run_dir / "history.csv", text.getvalue())

    def state(self) -> dict[str, object]:
        """Plain values for the checkpoint."""
        return {
            "rows": self.rows,
            "best_epoch": self.best_epoch,
            "best_value": self.best_value,
        }

    def load(self, state: dict) -> None:
        """Go on from ``state()``."""
        self.rows = [dict(row) for row in state["rows"]]
        self.best_epoch, self.best_value = state["best_epoch"], state["best_value"]


VALIDATION_LEFT_OUT = ("epoch", "loss", "lr", "images_per_second", "seconds")  # not of validation
Hook = Callable[[History], None]
