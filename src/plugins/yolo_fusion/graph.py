"""YOLO's graph with DINO's context joined to it, made of the installed package's own graph."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultralytics.nn.tasks import yaml_model_load
from ultralytics.utils import ROOT
from ultralytics.utils.ops import make_divisible

from ...core.errors import UserError
from ...core.registry import did_you_mean

Row = list[Any]  # [from, repeats, module, arguments]
FAMILIES = ("yolov8", "yolo11", "yolo26")


def plain_graph(yolo: str) -> dict[str, Any]:
    """The graph of e.g. yolov8n, of the installed ultralytics. UserError for an unknown name."""
    match = re.fullmatch(rf"({'|'.join(FAMILIES)})[nslmx]", yolo)
    if not match or not list(Path(ROOT, "cfg/models").rglob(f"{match[1]}.yaml")):
        known = [f"{family}{scale}" for family in FAMILIES for scale in "nslmx"]
        hint = did_you_mean(yolo, known)
        raise UserError(f"--yolo {yolo}{hint}: give one of {', '.join(known)}")
    return yaml_model_load(f"{yolo}.yaml")


def fused_graph(yolo: str, dino: dict[str, Any]) -> dict[str, Any]:
    """The graph with the context joined to the deepest map (P5; ``multi``: to P3 as well).

    Row 0 keeps the raw image, YOLO's backbone follows, then DinoContext, and for each level an
    Index row that picks its map and a Concat. The head reads the joined maps where it read
    YOLO's. dino: name, weights, context, control (see DinoContext).
    """
    graph = plain_graph(yolo)
    backbone, head = (copy.deepcopy(graph[key]) for key in ("backbone", "head"))
    count = len(backbone)
    levels = {count - 1: 32}
    if dino["context"] == "multi":
        levels = {min(place for place in _places(head) if place >= 0): 8, **levels}
    channels = [_channels(graph, backbone[row]) for row in levels]
    context = {**dino, "channels": channels, "strides": list(levels.values())}
    rows: list[Row] = [[-1, 1, "nn.Identity", []]]
    rows += [[_shifted(row[0], lambda i: i + 1), *row[1:]] for row in backbone]
    rows.append([0, 1, "DinoContext", [context]])
    moved = {}  # from the places of YOLO's rows to those of this graph
    for number, row in enumerate(levels):
        rows.append([count + 1, 1, "Index", [channels[number], number]])
        rows.append([[row + 1, -1], 1, "Concat", [1]])
        moved[row] = len(rows) - 1
    inserted = len(rows) - count

    def place(i: int) -> int:
        return moved.get(i, i + 1 if i < count else i + inserted)

    graph["backbone"] = rows
    graph["head"] = [[_shifted(row[0], place), *row[1:]] for row in head]
    return graph


def plain_places(graph: dict[str, Any]) -> list[int]:
    """Of a fused graph, the places of YOLO's own rows, in their order."""
    names = [row[2] for row in graph["backbone"]]
    count = names.index("DinoContext")
    return [*range(1, count), *range(len(names), len(names) + len(graph["head"]))]


def _places(rows: list[Row]) -> Iterator[int]:
    for row in rows:
        yield from row[0] if isinstance(row[0], list) else [row[0]]


def _shifted(source: int | list[int], place: Any) -> int | list[int]:
    if isinstance(source, list):
        return [i if i < 0 else place(i) for i in source]
    return source if source < 0 else place(source)


def _channels(graph: dict[str, Any], row: Row) -> int:
    """The width that ultralytics gives a row at the graph's scale."""
    _, width, most = graph["scales"][graph["scale"]]
    return make_divisible(min(row[3][0], most) * width, 8)
