"""``infer_classifier.py``: a checkpoint on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .settings import InferClassifier

if TYPE_CHECKING:
    from torch import Tensor

    from ..predict.predictor import Predictor


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from ..core import cli

    cli.run(lambda: infer(cli.parse(InferClassifier, argv, "infer_classifier.py")))


def load_predictor(options: InferClassifier) -> tuple[Predictor[Tensor], list[str]]:
    """The predictor of ``--model`` (probabilities [C] of each image) and its class names."""
    from ..predict.restore import predictor_of
    from .restore import restore_classifier

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
    from ..core.paths import output_folder
    from ..predict.images import report_images
    from .results import ClassificationReport

    predictor, names = load_predictor(options)
    report = ClassificationReport(names, options.top)
    folder = output_folder(options.out_dir)
    report.arrays = folder if options.save_arrays else None
    how = {"show": options.show, "recursive": options.recursive}
    return report_images(predictor, options.input, folder, report, **how)
