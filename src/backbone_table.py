"""The table of ``python -m src.evaluate_backbone``: results.json and results.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .backbone_parts import PARTS, Options, Part
from .backbones.published import SOURCES, TITLES, Figure, published
from .core.files import write_json, write_text


def write_results(results: Mapping[str, Any], folder: Path) -> None:
    """results.json (all figures, published ones with their sources) and results.md."""
    known = {label: asdict(published(row["model_name"])) for label, row in results["rows"].items()}
    content = {**results, "published": known, "sources": SOURCES}
    write_json(folder / "results.json", plain_figures(content))
    write_text(folder / "results.md", markdown(results) + "\n")


def plain_figures(value: Any) -> Any:
    """Paths as text, NaN as None: what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain_figures(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_figures(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def markdown(results: Mapping[str, Any]) -> str:
    """The table: a row a backbone, measured figures and then the published ones, each with the
    number of its source; a last row of what needs no backbone. Notes below."""
    names = list(results["data"])
    titles = [PARTS[name].title for name in names]
    heads = ["backbone", "weights", *titles, *(f"*{title}*" for title in TITLES.values())]
    lines = [heads, ["---"] * len(heads)]
    cited: list[str] = []
    floors: dict[str, float] = {}
    for label, row in results["rows"].items():
        cells = [row["model_name"], row["weights"]]
        for name in names:
            figures = results["measured"].get(label, {}).get(name, {})
            failed = name in results["failed"].get(label, {})
            cells.append(
                "failed" if failed else shown(figures.get(PARTS[name].figure), PARTS[name])
            )
            if PARTS[name].floor[0] in figures:
                floors[name] = figures[PARTS[name].floor[0]]
        lines.append(cells + [_cited(f, cited) for f in published(cells[0]).figures().values()])
    if floors:
        cells = [shown(floors.get(name), PARTS[name]) for name in names]
        lines.append(["*no backbone*", "", *cells, *([""] * len(TITLES))])
    table = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([*table, "", *(f"- {note}" for note in _notes(results, floors, cited))])


def _notes(results: Mapping[str, Any], floors: Mapping[str, float], cited: list[str]) -> list[str]:
    notes = [f"{PARTS[name].title}: {_source(given)}" for name, given in results["data"].items()]
    if floors:
        what = "; ".join(f"{PARTS[name].title}: {PARTS[name].floor[1]}" for name in floors)
        notes.append(f"no backbone: answers without looking. {what}")
    if any(row["weights"] == "none" for row in results["rows"].values()):
        notes.append("weights none: a random backbone; it sees colours and textures, nothing more")
    for name, found in results.get("differs", {}).items():
        if found:
            notes.append(f"{PARTS[name].title}, otherwise than published: {'; '.join(found)}")
    notes.append("in italics: published, on their own data and by their own protocol")
    return notes + [f"[{i}] {SOURCES[source]}" for i, source in enumerate(cited, start=1)]


def shown(value: float | None, part: Part) -> str:
    """A figure of a part as the table shows it."""
    if value is None or value != value:
        return "-"
    return f"{value * part.scale:.{1 if part.scale == 100 else 3}f}"


def _cited(figure: Figure | None, cited: list[str]) -> str:
    """A published figure and the number of its source; new sources are added to ``cited``."""
    if figure is None:
        return "-"
    if figure.source not in cited:
        cited.append(figure.source)
    return f"{figure.value:g} [{cited.index(figure.source) + 1}]"


def _source(given: Options) -> str:
    """Which data a part ran on, in a few words."""
    keys = ("config", "data_root", "train_dir", "valid_dir", "input", "gallery", "epochs", "imgsz")
    said = [f"{key} {_plainly(given[key])}" for key in keys if key in given]
    for key, values in given.get("sweep", {}).items():
        said.append(f"the best {key} of {', '.join(map(str, values))}")
    return ", ".join(said) or "defaults"


def _plainly(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
