"""``python -m src.compare RUN RUN ...``: what differs between runs, and what came of it."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .core.config import CommandSettings, option

log = logging.getLogger(__name__)


class CompareOptions(CommandSettings):
    """Compare runs: options that differ, the figures of their best epochs, curves."""

    runs: list[str] = option(..., positional=True, help="folders of runs, or names in outputs/")
    out_dir: Path = option(Path("comparison"), help="sub-folder of outputs/ for the pictures")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from .core import cli

    cli.run(lambda: compare(cli.parse(CompareOptions, argv, "python -m src.compare")) and None)


def compare(options: CompareOptions) -> dict[str, Any]:
    """Log the tables and draw a picture for each figure of validation; options and best figures by
    run. UserError for a folder without a history."""
    from .core.errors import UserError
    from .core.paths import output_folder
    from .engine.history import VALIDATION_LEFT_OUT
    from .engine.run_folder import HISTORY
    from .visualise.plots import plot_history

    if len(options.runs) < 2:
        raise UserError("name two runs or more")
    folders = {name: _folder(name) for name in options.runs}
    rows = {}
    for name, folder in folders.items():
        if not (folder / HISTORY).is_file():
            raise UserError(f"{folder} holds no {HISTORY}: is it the folder of a run?")
        with (folder / HISTORY).open(encoding="utf-8") as file:
            rows[name] = [
                {k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)
            ]
    configs = {name: _options(folder) for name, folder in folders.items()}
    keys = {key: None for config in configs.values() for key in config}
    differ = {
        key: [str(config.get(key, "-")) for config in configs.values()]
        for key in keys
        if len({str(config.get(key, "-")) for config in configs.values()}) > 1
    }
    figures = list({k: None for some in rows.values() for row in some for k in row})
    figures = [name for name in figures if not name.startswith(VALIDATION_LEFT_OUT)]
    best = {name: _best(folders[name], some) for name, some in rows.items()}
    told = {
        name: [f"{best[run][name]:.4g}" if name in best[run] else "-" for run in rows]
        for name in ("epoch", *figures)
    }
    log.info("%s", _table("options that differ", list(rows), differ))
    log.info("%s", _table("of the best epoch", list(rows), told))
    out_dir = output_folder(options.out_dir)
    for figure in [*figures, "loss"]:
        curves = {
            run: [row.get(figure, float("nan")) for row in some] for run, some in rows.items()
        }
        plot_history(curves, out_dir / f"{figure.replace('/', '_')}.png", figure, figure)
    log.info("curves are in %s", out_dir)
    return {"options": differ, "best": best}


def _folder(name: str) -> Path:
    from .core.paths import output_folder

    return Path(name) if Path(name).is_dir() else output_folder(name)


def _options(folder: Path) -> dict[str, Any]:
    """The options of a run, those of its data set among them."""
    from .core.config import load_yaml
    from .engine.run_folder import CONFIG

    content = load_yaml(folder / CONFIG)
    dataset = content.pop("dataset", None) or {}
    return {k: v for k, v in {**content, **dataset}.items() if k not in ("out_dir", "resume")}


def _best(folder: Path, rows: list[dict[str, float]]) -> dict[str, float]:
    """The row of the epoch that best_model.pth is of; the last one where there is none yet."""
    from .engine.checkpoint import load_checkpoint
    from .engine.run_folder import BEST

    epoch = (
        load_checkpoint(folder, weights=False)["epoch"] if (folder / BEST).is_file() else len(rows)
    )
    return next((row for row in rows if row["epoch"] == epoch), rows[-1] if rows else {})


def _table(title: str, runs: list[str], rows: dict[str, list[str]]) -> str:
    widths = [max(len(run), *(len(row[i]) for row in rows.values()), 6) if rows else len(run)
              for i, run in enumerate(runs)]  # fmt: skip
    left = max(len(title), *(len(name) for name in rows)) if rows else len(title)
    lines = [[title, *runs], *([name, *row] for name, row in rows.items())]
    return "\n".join(
        "  ".join([line[0].ljust(left), *(v.rjust(w) for v, w in zip(line[1:], widths))])
        for line in lines
    )


if __name__ == "__main__":
    main()
