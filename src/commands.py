"""``dinostack``: one command over all others, the same flags as the scripts of a clone.

dinostack                              every command with one line
dinostack detection train --help       as python train_detection.py --help
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from .core import cli
from .core.errors import UserError
from .core.registry import did_you_mean
from .predict.settings import names_video


class Command(NamedTuple):
    """One command: ``module:function`` (a ``main`` that reads sys.argv; ``module:images|video``:
    the first or the second, by what --input names), and one line of help."""

    target: str
    help: str


COMMANDS: dict[str, Command] = {
    "detection train": Command("detection.train:main", "train a detector from a dataset YAML"),
    "detection predict": Command(
        "detection.infer:main_image|main_video", "annotate images, or a video"
    ),
    "detection summary": Command("detection.model:main", "layers and size of a detector"),
    "segmentation train": Command("segmentation.train:main", "train a segmenter"),
    "segmentation predict": Command(
        "segmentation.infer:main_image|main_video", "segment images, or a video"
    ),
    "segmentation summary": Command("segmentation.model:main", "layers and size of a segmenter"),
    "classification train": Command("classification.train:main", "train a classifier"),
    "classification predict": Command("classification.infer:main", "classify images"),
    "classification summary": Command("classification.model:main", "layers of a classifier"),
    "depth train": Command("depth.train:main", "train a model of depth"),
    "depth predict": Command("depth.infer:main_image|main_video", "depth of images, or of a video"),
    "depth summary": Command("depth.model:main", "layers and size of a model of depth"),
    "multi": Command("multi:main", "several trained models on images or a video, one pass"),
    "pretraining train": Command(
        "pretraining.train:main", "self-distillation on unlabelled images, distillation"
    ),
    "pretraining": Command("pretraining.__main__:main", "export, replay, pseudo-labels"),
    "yolo": Command(
        "plugins.yolo_fusion.__main__:main", "YOLO with DINO's context: train, val, predict ..."
    ),
    "models": Command("models.__main__:main", "models that others published, for --model hub:NAME"),
    "evaluate": Command("evaluate:main", "figures of a checkpoint on a data set"),
    "export": Command("export:main", "a model as a file for ONNX Runtime, OpenVINO, TensorRT"),
    "compare": Command("compare:main", "runs side by side: options, figures, curves"),
    "evaluate-backbone": Command(
        "evaluate_backbone:main", "k-NN, probes and retrieval of backbones in one table"
    ),
    "features": Command("features.__main__:main", "features to a file, the cosine of two images"),
    "retrieval": Command("retrieval.__main__:main", "build, search and evaluate an index"),
    "visualise": Command("visualise.__main__:main", "attention, PCA and similarity pictures"),
    "oneshot": Command("oneshot.__main__:main", "masks from one example, also through a video"),
    "data check": Command("data.check:main", "everything that is wrong with a data set"),
    "data fetch-voc": Command("data.fetch_voc:main", "bring Pascal VOC 2007 + 2012"),
    "data draw-boxes": Command("data.drawn.boxes:main", "draw a detection data set"),
    "data draw-instances": Command("data.drawn.instances:main", "draw a data set of instances"),
    "data draw-depths": Command("data.drawn.depths:main", "draw a data set of depths"),
    "demo": Command("demo:main", "the main job on drawn data, in minutes on a CPU"),
    "doctor": Command("system_report:main", "versions, devices, codecs; what is missing"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line: the words that name a command, then its own flags."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(listing())
        return
    cli.run(lambda: run(words))


def run(words: list[str]) -> None:
    """Run the command that the first words name. UserError when none is named so."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return _call(name, COMMANDS[name], words[count:])
    group = [name for name in COMMANDS if name.split()[0] == words[0]]
    if group:
        raise UserError(f"dinostack {words[0]}: name one of: {', '.join(sorted(group))}")
    hint = did_you_mean(words[0], {name.split()[0] for name in COMMANDS})
    raise UserError(f"unknown command '{words[0]}'{hint}; dinostack --help lists all")


def _call(name: str, command: Command, rest: list[str]) -> None:
    module, _, function = command.target.partition(":")
    images, _, video = function.partition("|")
    chosen = video if video and _names_video(rest) else images
    main: Callable[[], None] = getattr(import_module(f".{module}", __package__), chosen)
    cli.called_as = f"dinostack {name}"
    sys.argv = [cli.called_as, *rest]
    main()


def _names_video(words: Sequence[str]) -> bool:
    """Whether the value of --input is a video file, a camera's index or an address."""
    for flag, value in zip(["", *words], [*words, ""]):
        name, _, joined = value.partition("=")
        given = joined if name == "--input" else value if flag in ("-i", "--input") else ""
        if given:
            return names_video(given)
    return False


def listing() -> str:
    """All commands, a line each."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.help}" for name, command in COMMANDS.items()]
    return "usage: dinostack COMMAND [options]\n\n" + "\n".join(
        [*lines, "", "each has its own --help; train and predict take the flags of the scripts"]
    )


if __name__ == "__main__":
    main()
