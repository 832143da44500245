"""``python -m src.evaluate_backbone --config C``: what DINO papers report of a frozen backbone.

k-NN, linear probes of classification, segmentation and depth, and retrieval, on the data that
the YAML names, as one table (results.json, results.md) beside the published figures.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from .backbone_parts import PARTS, Options, Part, Ready
from .backbone_protocols import differences
from .core.config import CommandSettings, Settings, option
from .core.errors import UserError

log = logging.getLogger(__name__)


class EvaluationData(Settings):
    """The parts of an evaluation: each holds options of its command (``--help`` there), by the
    names of the flags with _ for -, and under ``sweep`` options with several values each, of which
    the best is kept; a part that is left out is not run."""

    KNN: Options | None = Field(None, description="train_classifier.py with --head knn")
    LINEAR: Options | None = Field(None, description="train_classifier.py with --head linear")
    SEGMENTATION: Options | None = Field(
        None, description="train_segmentation.py with --head linear"
    )
    DEPTH: Options | None = Field(None, description="train_depth.py with --head linear")
    RETRIEVAL: Options | None = Field(None, description="python -m src.retrieval evaluate")

    @model_validator(mode="after")
    def _something(self) -> EvaluationData:
        if all(value is None for value in self.parts().values()):
            raise ValueError(f"names no part: give one or more of {', '.join(self.parts())}")
        for name, options in self.parts().items():
            fixed = {"model_name", "weights", "out_dir", "fine_tune", "tune"}
            own = sorted(fixed & set(options or {}))
            if own:
                raise ValueError(f"{name}: {', '.join(own)} cannot be set in a part of it")
            sweep = (options or {}).get("sweep", {})
            if not isinstance(sweep, dict) or not all(
                isinstance(values, list) and values for values in sweep.values()
            ):
                raise ValueError(f"{name}: sweep is a mapping of options to lists: {{lr: [1e-4]}}")
        return self

    def parts(self) -> dict[str, Options | None]:
        """The parts by name, in the order of the table."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class EvaluateBackbone(CommandSettings):
    """Evaluate frozen backbones: k-NN, linear probes, retrieval, as one table."""

    dataset_class: ClassVar[type[Settings] | None] = EvaluationData

    config: Path = option(..., flags=["-c"], help="YAML of the parts (evaluation_configs/)")
    model_name: list[str] = option(["dinov3_vits16"], help="backbones, one row of the table each")
    weights: list[str] = option(
        ["pretrained"],
        flags=["--weight"],
        help="weights: one for all backbones, or one for each; a file, 'pretrained' or 'none'",
    )
    hub: Literal["auto", "bundled", "local", "github"] = option(
        "auto", help="where torch.hub.load looks"
    )
    repo_dir: Path | None = option(None, help="clone of facebookresearch/dinov3 or dinov2")
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where to run")
    out_dir: Path = option(Path("backbone_evaluation"), help="sub-folder of outputs/ for results")

    @model_validator(mode="after")
    def _lengths(self) -> EvaluateBackbone:
        if len(self.weights) not in (1, len(self.model_name)):
            raise ValueError(
                f"{len(self.weights)} weights for {len(self.model_name)} backbones: give one for "
                "all, or one for each"
            )
        return self

    def rows(self) -> dict[str, dict[str, str]]:
        """The rows of the table: a label (the backbone's name, with the weights' where it comes
        more than once) -> model_name and weights. UserError for two of a kind."""
        weights = self.weights * (len(self.model_name) if len(self.weights) == 1 else 1)
        rows: dict[str, dict[str, str]] = {}
        for name, given in zip(self.model_name, weights):
            often = Counter(self.model_name)[name] > 1
            label = f"{name}-{Path(given).stem}" if often else name
            if label in rows:
                raise UserError(f"--model-name gives {name} twice with weights called {given}")
            rows[label] = {"model_name": name, "weights": given}
        return rows


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from .core import cli

    prog = "python -m src.evaluate_backbone"
    cli.run(lambda: evaluate_backbones(cli.parse(EvaluateBackbone, argv, prog)))


def evaluate_backbones(options: EvaluateBackbone) -> int:
    """Run all parts on all backbones; results are written after each part. The exit code: 1 when
    a part could not be run (the rest goes on)."""
    from .backbone_table import markdown, write_results
    from .backbones.catalog import is_foreign
    from .core.files import require_writable
    from .core.paths import output_folder

    rows = options.rows()
    for row in rows.values():
        is_foreign(row["model_name"])
    folder = require_writable(output_folder(options.out_dir)).absolute()
    wanted = {name: given for name, given in options.dataset.parts().items() if given is not None}
    runs: list[tuple[str, str, dict[str, Ready]]] = []
    results: dict[str, Any] = {"rows": rows, "data": wanted, "differs": {}}
    results |= {"measured": {}, "failed": {}}
    for label, row in rows.items():
        for name, given in wanted.items():
            ready = {}
            for setting, values in combinations(given).items():
                out = folder / label / name.lower() / setting
                try:
                    ready[setting] = PARTS[name].read(part_flags(options, name, values, row, out))
                except UserError as error:
                    raise UserError(f"{options.config}: {name}: {error}") from None
            runs.append((label, name, ready))
            first = next(iter(ready.values())).options
            results["differs"][name] = differences(name, first, list(given.get("sweep", {})))
    for number, (label, name, ready) in enumerate(runs, start=1):
        log.info("\n[%d/%d] %s: %s", number, len(runs), label, name)
        started = time.monotonic()
        try:
            figures = run_all(PARTS[name], ready)
            figures["seconds"] = round(time.monotonic() - started, 1)
            results["measured"].setdefault(label, {})[name] = figures
        except UserError as error:
            log.error("%s: %s: %s", label, name, error)
            results["failed"].setdefault(label, {})[name] = str(error)
        write_results(results, folder)
    log.info("\n%s\n\nresults.json and results.md are in %s", markdown(results), folder)
    return 1 if results["failed"] else 0


def combinations(given: Options) -> dict[str, Options]:
    """A part's options for each setting of its ``sweep``, by a name ("" without one)."""
    plain = {key: value for key, value in given.items() if key != "sweep"}
    swept = given.get("sweep") or {}
    found = {}
    for values in product(*swept.values()):
        pairs = dict(zip(swept, values))
        found["_".join(f"{key}-{value}" for key, value in pairs.items())] = {**plain, **pairs}
    return found


def run_all(part: Part, ready: dict[str, Ready]) -> dict[str, Any]:
    """The figures of a part, of a sweep those of its best setting; ``swept``: all headlines."""
    runs = {}
    for setting, one in ready.items():
        if setting:
            log.info("%s", setting)
        runs[setting] = one.run()
    best = part.best(runs)
    if len(runs) == 1:
        return {**runs[best]}
    swept = {setting: figures[part.figure] for setting, figures in runs.items()}
    return {**runs[best], "best_setting": best, "swept": swept}


def part_flags(
    options: EvaluateBackbone, name: str, given: Options, row: dict[str, str], out: Path
) -> list[str]:
    """A part's options as the flags of its command: the YAML's over those that make the part."""
    values: Options = {**PARTS[name].fixed, **given, **row}
    values |= {"hub": options.hub, "device": options.device, "out_dir": out}
    if options.repo_dir is not None:
        values["repo_dir"] = options.repo_dir
    words = []
    for key, value in values.items():
        if value is None or value is False:
            continue
        words.append("--" + key.replace("_", "-"))
        if value is not True:
            words += [str(item) for item in (value if isinstance(value, list) else [value])]
    return words


if __name__ == "__main__":
    main()
