"""``python -m src.evaluate_backbone --config C``: what DINO papers report of a frozen backbone.

k-NN, linear probes of classification, segmentation and depth, and retrieval, on the data that
the YAML names, as one table (results.json, results.md) beside the published figures.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from src.core.config import CommandSettings, Settings, option

log = logging.getLogger(__name__)

C = TypeVar("C", bound=CommandSettings)
Options = dict[str, Any]
Figures = dict[str, float]


class EvaluationData(Settings):
    """The parts of an evaluation: each holds options of its command (``--help`` there), by the
    names of the flags with _ for -; a part that is left out is not run."""

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
            own = sorted({"model_name", "weights", "out_dir", "fine_tune"} & set(options or {}))
            if own:
                raise ValueError(f"{name}: {', '.join(own)} cannot be set in a part of it")
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

    def backbones(self) -> list[tuple[str, str]]:
        """(name, weights) of each row."""
        weights = self.weights * (len(self.model_name) if len(self.weights) == 1 else 1)
        return list(zip(self.model_name, weights))


@dataclass(frozen=True)
class Part:
    """One column. read: options as flags -> a function that runs it (nothing is run before all
    options of all parts are read); fixed: what a part is; figure, title: its headline."""

    read: Callable[[list[str]], Callable[[], Figures]]
    fixed: Options
    figure: str
    title: str


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    prog = "python -m src.evaluate_backbone"
    cli.run(lambda: evaluate_backbones(cli.parse(EvaluateBackbone, argv, prog)))


def evaluate_backbones(options: EvaluateBackbone) -> int:
    """Run all parts on all backbones; results are written after each part. The exit code: 1 when
    a part could not be run (the rest goes on)."""
    from src.backbones.catalog import CATALOG
    from src.core.errors import UserError
    from src.core.files import require_writable
    from src.core.paths import output_folder

    folder = require_writable(output_folder(options.out_dir))
    wanted = {name: given for name, given in options.dataset.parts().items() if given is not None}
    runs = []
    for backbone, weights in options.backbones():
        assert CATALOG[backbone]
        for name, given in wanted.items():
            flags = part_flags(options, name, given, backbone, weights, folder)
            try:
                runs.append((backbone, name, PARTS[name].read(flags)))
            except UserError as error:
                raise UserError(f"{options.config}: {name}: {error}") from None
    results: dict[str, Any] = {
        "weights": dict(options.backbones()), "data": wanted, "measured": {}, "failed": {}
    }  # fmt: skip
    for number, (backbone, name, run) in enumerate(runs, start=1):
        log.info("\n[%d/%d] %s: %s", number, len(runs), backbone, name)
        started = time.monotonic()
        try:
            figures = run()
            figures["seconds"] = round(time.monotonic() - started, 1)
            results["measured"].setdefault(backbone, {})[name] = figures
        except UserError as error:
            log.error("%s: %s: %s", backbone, name, error)
            results["failed"].setdefault(backbone, {})[name] = str(error)
        write_results(results, folder)
    log.info("\n%s\nresults.json and results.md are in %s", markdown(results), folder)
    return 1 if results["failed"] else 0


def part_flags(
    options: EvaluateBackbone, name: str, given: Options, backbone: str, weights: str, folder: Path
) -> list[str]:
    """A part's options as the flags of its command: the YAML's over those that make the part."""
    values: Options = {**PARTS[name].fixed, **given}
    values |= {"model_name": backbone, "weights": weights, "hub": options.hub}
    values |= {"device": options.device, "out_dir": folder / backbone / name.lower()}
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


def parse_probe(settings: type[C], flags: list[str], prog: str) -> C:
    """The options of a probe: whatever the TRAIN of a data set's YAML says, the backbone stays
    frozen."""
    from src.core.cli import parse

    return parse(settings, flags, prog).model_copy(update={"fine_tune": False})


def best(history: Any) -> Figures:
    """The metrics of a training run's best epoch."""
    row = next(row for row in history.rows if row["epoch"] == history.best_epoch)
    left_out = ("epoch", "loss", "lr", "images_per_second", "seconds", "minus_")
    return {name: float(v) for name, v in row.items() if not name.startswith(left_out)}


def probe(task: str, settings: str, script: str) -> Callable[[list[str]], Callable[[], Figures]]:
    """A part that is a training run: ``src.<task>.train.train`` of these settings."""

    def read(flags: list[str]) -> Callable[[], Figures]:
        kind = getattr(import_module(f"src.{task}.settings"), settings)
        options = parse_probe(kind, flags, script)
        return lambda: best(import_module(f"src.{task}.train").train(options))

    return read


def read_retrieval(flags: list[str]) -> Callable[[], Figures]:
    """recall@k and mAP by the class token's cosine."""
    from src.core.cli import parse
    from src.retrieval.settings import EvaluateOptions

    options = parse(EvaluateOptions, flags, "python -m src.retrieval evaluate")

    def run() -> Figures:
        import json

        from src.core.paths import output_folder
        from src.retrieval.evaluate import run_evaluate

        run_evaluate(options)
        scores = json.loads((output_folder(options.out_dir) / "scores.json").read_text())
        recall = {f"recall@{k}": value for k, value in scores["recall"].items()}
        return {"mAP": scores["mAP"], **recall, "chance_mAP": scores["chance"]["mAP"]}

    return run


_CLASSIFICATION = probe("classification", "TrainClassifier", "train_classifier.py")
_SEGMENTATION = probe("segmentation", "TrainSegmentation", "train_segmentation.py")
_DEPTH = probe("depth", "TrainDepth", "train_depth.py")
_PROBE = {"head": "linear", "overwrite": True, "schedule": "cosine", "lr": 1e-3}
PARTS: dict[str, Part] = {
    "KNN": Part(_CLASSIFICATION, {"head": "knn", "overwrite": True}, "top1", "k-NN top-1"),
    "LINEAR": Part(_CLASSIFICATION, _PROBE, "top1", "linear top-1"),
    "SEGMENTATION": Part(_SEGMENTATION, _PROBE, "mIoU", "segmentation mIoU"),
    "DEPTH": Part(_DEPTH, {**_PROBE, "lr": 3e-4}, "RMSE", "depth RMSE (m)"),
    "RETRIEVAL": Part(read_retrieval, {}, "mAP", "retrieval mAP"),
}
# Figures of the same run that no backbone is needed for, to stand below the table.
FLOORS = {
    "DEPTH": ("mean_predictor_RMSE", "always the mean depth"),
    "RETRIEVAL": ("chance_mAP", "a random order"),
}


def write_results(results: Mapping[str, Any], folder: Path) -> None:
    """results.json (all figures, published ones with their sources) and results.md."""
    from dataclasses import asdict

    from src.backbones.published import SOURCES, published
    from src.core.files import write_json, write_text

    known = {name: asdict(published(name)) for name in results["weights"]}
    content = {**results, "published": known, "sources": SOURCES}
    write_json(folder / "results.json", plain(content))
    write_text(folder / "results.md", markdown(results) + "\n")


def plain(value: Any) -> Any:
    """Paths as text, NaN as None: what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def markdown(results: Mapping[str, Any]) -> str:
    """The table: a row a backbone, measured figures and then the published ones."""
    from src.backbones.published import SOURCES, published

    names = list(results["data"])
    heads = ["backbone", "weights", *(PARTS[name].title for name in names)]
    heads += ["*ImageNet k-NN*", "*ADE20K mIoU*", "*NYU RMSE*"]
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    floors: dict[str, float] = {}
    for backbone, weights in results["weights"].items():
        measured = results["measured"].get(backbone, {})
        cells = [backbone, weights]
        for name in names:
            figures = measured.get(name)
            failed = name in results["failed"].get(backbone, {})
            cells.append(_shown(figures and figures.get(PARTS[name].figure), failed))
            if figures and name in FLOORS:
                floors[name] = figures[FLOORS[name][0]]
        paper = published(backbone)
        cells += [_shown(v) for v in (paper.imagenet_knn, paper.ade20k_miou, paper.nyu_rmse)]
        lines.append(" | ".join(cells))
    table = [f"| {line} |" for line in lines]
    notes = [f"{PARTS[name].title}: {_source(results['data'][name])}" for name in names]
    notes += [
        f"{PARTS[name].title} of {FLOORS[name][1]}: {value:.3f}" for name, value in floors.items()
    ]
    if "none" in results["weights"].values():
        notes.append("weights none: a random backbone, near what chance gives")
    notes.append("in italics: published, on their own data, not measured here. " + "; ".join(
        f"{name}: {source}" for name, source in SOURCES.items()
    ))  # fmt: skip
    return "\n".join([*table, "", *(f"- {note}" for note in notes)])


def _shown(value: float | None, failed: bool = False) -> str:
    if failed:
        return "failed"
    if value is None:
        return "-"
    return f"{value:.1f}" if value > 20 else f"{value:.3f}"


def _source(given: Options) -> str:
    """Which data a part ran on, in a few words."""
    keys = ("config", "data_root", "train_dir", "valid_dir", "input", "gallery", "epochs", "imgsz")
    return ", ".join(f"{key} {given[key]}" for key in keys if key in given) or "its defaults"


if __name__ == "__main__":
    main()
