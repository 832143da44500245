"""``infer_classifier.py``: a checkpoint on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from src.classification.settings import InferClassifier

if TYPE_CHECKING:
    from torch import Tensor

    from src.predict.predictor import Predictor


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    cli.run(lambda: infer(cli.parse(InferClassifier, argv, "infer_classifier.py")))


def load_predictor(options: InferClassifier) -> tuple[Predictor[Tensor], list[str]]:
    """The predictor of ``--model`` (probabilities [C] of each image) and its class names."""
    from src.classification.restore import restore_classifier
    from src.predict.restore import predictor_of

    trained = restore_classifier(options.model, options, options.imgsz)
    probabilities = trained.model.criterion.probabilities
    predictor = predictor_of(
        trained,
        options,
        on_device=lambda logits, _: probabilities(logits),
        postprocess=lambda result, _: result,
    )
    return predictor, trained.names


def infer(options: InferClassifier) -> int:
    """Pictures with their classes, classes.json and classes.csv; the exit code."""
    from src.classification.results import ClassificationReport
    from src.core.paths import output_folder
    from src.predict.images import report_images

    predictor, names = load_predictor(options)
    report = ClassificationReport(names, options.top)
    folder = output_folder(options.out_dir)
    return report_images(predictor, options.input, folder, report, show=options.show)
