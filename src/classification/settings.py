"""Options of classification (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from ..backbones.settings import BackboneOptions, ModelSummary, TuneOptions
from ..core.config import Settings, Sides, option
from ..core.structures import ResizeMode
from ..data.common.settings import DataOptions
from ..data.labels.settings import LabelDataset, LabelFolders
from ..engine.settings import TrainingOptions
from ..features.settings import CacheOptions
from ..predict.settings import ImageOptions, KnownOptions

Head = Literal["linear", "cls+patches", "layers", "attentive", "knn", "logistic"]


class ClassificationModelOptions(BackboneOptions):
    """Classification model."""

    head: Head = option(
        "linear",
        help="linear = on the class token; cls+patches = with the mean of the patches; layers = "
        "Meta's linear protocol; attentive = a learned query over all tokens; knn and logistic "
        "need no epochs",
    )
    head_layers: int = option(4, ge=1, help="last layers that --head layers reads")
    feature_extractor: Literal["last", "multi", "last4"] = option(
        "last", flags=["--feautre-extractor"], hidden=True, help="without effect here"
    )
    imgsz: Sides = option(
        [224, 224], help="width and height of the model's input (one number: both)"
    )

    def model_arguments(self) -> dict[str, Any]:
        """What ``build_classifier`` takes, but the classes and the loss."""
        return {**super().model_arguments(), "head": self.head, "layers": self.head_layers}


class TrainClassifier(
    TrainingOptions,
    TuneOptions,
    ClassificationModelOptions,
    DataOptions,
    LabelFolders,
    CacheOptions,
):
    """Train image classification on a DINO backbone, from folders or a dataset YAML."""

    dataset_class: ClassVar[type[Settings] | None] = LabelDataset

    config: Path | None = option(
        None, flags=["-c"], help="dataset YAML (classification_configs/); not needed with folders"
    )
    resize: ResizeMode = option(  # type: ignore[assignment]
        "stretch",
        help="stretch = fill --imgsz exactly; fit = keep the aspect ratio inside it; short = keep "
        "it, the short side is that of --imgsz; crop = the middle of 8/7 of --imgsz (resize 256, "
        "crop 224)",
    )
    augment: Literal["none", "flip", "crop", "strong"] = option(
        "crop", help="none; flip; crop = random part of the image, flip; strong = and colour, blur"
    )
    lr: float = option(1e-3, gt=0, flags=["-lr", "--learning-rate"], help="learning rate")
    batch: int = option(  # type: ignore[assignment]
        32, ge=1, flags=["-b", "--batch-size"], help="images a step, over all processes together"
    )
    scheduler_epochs: list[int] = option(
        [1000],
        flags=["--scheduler"],
        help="epochs after which multistep divides the learning rate by 10",
    )
    label_smoothing: float = option(0.0, ge=0, lt=1, help="share of a label given to all classes")
    mixup: float = option(0.0, ge=0, help="alpha of blended images, e.g. 0.2; 0 = none")
    cutmix: float = option(0.0, ge=0, help="alpha of pasted rectangles, e.g. 1; 0 = none")
    balanced: bool = option(False, help="draw the images of rare classes as often as those of all")
    knn_k: list[int] = option(
        [10, 20, 100, 200], help="numbers of neighbours that --head knn tries; the best is kept"
    )
    save_name: str = option(
        "model", help="the best model is also written as best_<name>.pth (the tutorial's flag)"
    )
    out_dir: Path = option(Path("img_cls"), help="sub-folder of outputs/ for this run")


class ClassificationModelSummary(ModelSummary, ClassificationModelOptions):
    """Print the layers, parameters and multiply-adds of a classifier."""

    num_classes: int = option(1000, ge=2, help="number of classes")


class EvaluateClassification(LabelFolders):
    """Evaluation of classification."""

    test_dir: Path | None = option(
        None, help="test images in a folder a class, shards, or a CSV file of path,label"
    )


class InferClassifier(ImageOptions, KnownOptions):
    """Classify images: a file, a folder or a glob."""

    model: Path = option(
        ...,
        flags=["-m", "-w", "--weights"],
        help="checkpoint of a training run: best_model.pth; or a published model, hub:NAME",
    )
    save_arrays: bool = option(
        False, help="write the probabilities of all classes as arrays/*.npy (float32 [C]) as well"
    )
    top: int = option(5, ge=1, help="classes to name, the most probable first")
    out_dir: Path = option(
        Path("inference_results_classifier"), help="sub-folder of outputs/ for the results"
    )
