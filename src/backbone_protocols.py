"""How the published figures were taken, and what of it a part of an evaluation does otherwise.

Read in Meta's code: dinov2/eval/knn.py and linear.py, dinov3/eval/segmentation/config.py and
dinov3/eval/depth/config.py (github.com/facebookresearch), and the papers' sections on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """options: flags as published; data: the data set; always: what this program does otherwise
    whatever the flags say; sweeps: whether the learning rate was chosen among several."""

    data: str
    options: dict[str, Any]
    always: tuple[str, ...] = ()
    sweeps: bool = True


_RESIZE = "bilinear (or area) instead of bicubic resizing"
_ONE_CYCLE = "cosine with --warmup-epochs instead of one-cycle"
PROTOCOLS: dict[str, Protocol] = {
    "KNN": Protocol(
        "imagenet",
        {"imgsz": [224, 224], "resize": "crop", "knn_k": [10, 20, 100, 200]},
        (_RESIZE,),
        sweeps=False,
    ),
    "LINEAR": Protocol(
        "imagenet",
        {
            "imgsz": [224, 224],
            "resize": "crop",
            "augment": "crop",
            "optimizer": "SGD",
            "weight_decay": 0.0,
            "schedule": "cosine",
            "epochs": 10,
            "batch": 1024,
        },
        (_RESIZE, "training crops of 35 to 100 % instead of 8 to 100 % of the area"),
    ),
    "SEGMENTATION": Protocol(
        "ade20k",
        {
            "imgsz": [512, 512],
            "resize": "short",
            "slide": True,
            "overlap": 1 / 3,
            "feature_extractor": "last",
            "augment": "jitter",
            "epochs": 32,
            "batch": 16,
            "weight_decay": 1e-2,
            "clip": 35.0,
        },
        (_ONE_CYCLE,),
    ),
    "DEPTH": Protocol(
        "nyu",
        {
            "imgsz": [640, 480],
            "feature_extractor": "last",
            "bins": 256,
            "flip": True,
            "batch": 16,
            "weight_decay": 1e-2,
            "clip": 35.0,
        },
        (_ONE_CYCLE, "a batch norm before the linear layer"),
    ),
}


def differences(part: str, options: Any, swept: list[str]) -> list[str]:
    """What a run of these options does otherwise than the published protocol, in words; empty
    for a part that has none. swept: the options that are chosen among several."""
    protocol = PROTOCOLS.get(part)
    if protocol is None:
        return []
    found = []
    config = getattr(options, "config", None)
    named = str(config or getattr(options, "train_dir", "") or "").lower()
    if protocol.data not in named:
        source = Path(named).stem if config else named
        found.append(f"data {source or 'unknown'} (published: {protocol.data})")
    for name, value in protocol.options.items():
        here = getattr(options, name)
        if name not in swept and here != value:
            found.append(f"{name} {_plain(here)} (published: {_plain(value)})")
    if protocol.sweeps and "lr" not in swept:
        found.append("one learning rate (published: the best of several)")
    return [*found, *protocol.always]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value)) if len(value) == 2 else " ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
