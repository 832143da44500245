"""Options of pretraining (light: nothing heavy is imported here)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ..core.config import CommandSettings, Settings, option
from ..engine.settings import TrainingOptions


class ImageSet(Settings):
    """Unlabelled images (pretraining_configs/)."""

    DATA_ROOT: Path = Field(Path(), description="folder that IMAGES starts from")
    IMAGES: str | None = Field(
        None, description="a folder, a glob, shards, or a .txt list of paths"
    )
    HOW_TO_GET: str = Field("", description="said when a folder or file is not there")

    @property
    def names(self) -> list[str]:
        """No classes."""
        return []


class CropOptions(CommandSettings):
    """Crops."""

    global_size: int = option(224, ge=32, help="side of the two global crops, in pixels")
    local_size: int = option(96, ge=16, help="side of the local crops, in pixels")
    locals: int = option(8, ge=1, le=16, help="local crops an image")
    global_scale: list[float] = option([0.32, 1.0], help="share of the image in a global crop")
    local_scale: list[float] = option([0.05, 0.32], help="share of the image in a local crop")
    gram_size: int | None = option(
        None, ge=32, help="side of the crops that Gram's teacher sees (default: --global-size)"
    )


class LossOptions(CommandSettings):
    """Losses and heads."""

    dino: float = option(1.0, ge=0, help="weight of the DINO loss (class tokens)")
    ibot: float = option(1.0, ge=0, help="weight of the iBOT loss (masked patches; ViT only)")
    koleo: float = option(0.1, ge=0, help="weight of KoLeo, which spreads the class tokens")
    koleo_everywhere: bool = option(
        False, help="KoLeo's neighbours are sought among the images of all processes"
    )
    gram: float = option(0.0, ge=0, help="weight of Gram anchoring of the patches' similarities")
    gram_teacher: Literal["start", "ema"] = option(
        "start", help="Gram holds to the backbone as it was at the start, or to the teacher"
    )
    gram_refresh: int = option(
        0, ge=0, help="put the teacher in the start's place every N steps; 0 = never"
    )
    gram_level: Literal["image", "batch"] = option(
        "image", help="Gram compares the patches of one image, or of the whole batch"
    )
    gram_negatives: Literal["keep", "drop", "drop-teacher"] = option(
        "keep", help="what becomes of similarities below 0"
    )
    centring: Literal["sinkhorn", "softmax"] = option(
        "sinkhorn", help="targets by Sinkhorn-Knopp, or by a softmax about a moving centre"
    )
    prototypes: int = option(16384, ge=2, flags=["--k"], help="prototypes of each head (K)")
    hidden: int = option(2048, ge=8, help="hidden width of the heads")
    bottleneck: int = option(256, ge=4, help="bottleneck width of the heads")
    drop_path: float = option(0.0, ge=0, lt=1, help="stochastic depth of the student")


class CurveOptions(CommandSettings):
    """Schedules."""

    lr_rule: Literal["sqrt1024", "linear256", "none"] = option(
        "sqrt1024",
        help="--lr is multiplied by 4 sqrt(batch / 1024) (DINOv2 and v3), by batch / 256, or not",
    )
    min_lr: float = option(1e-6, ge=0, help="learning rate at the end of the cosine (no rule)")
    cosine_epochs: float | None = option(
        None, gt=0, help="the cosine ends after so many epochs, and --min-lr holds (default: all)"
    )
    schedule_extra: float = option(
        0.0, ge=0, help="DINOv3's schedule_trunc_extra: the cosine of (1 + X) times as many steps"
    )
    weight_decay_end: float = option(0.4, ge=0, help="weight decay at the end (cosine)")
    patch_embed_lr: float = option(0.2, gt=0, help="factor on the rate of the patch embedding")
    momentum: float = option(0.992, ge=0, le=1, help="of the teacher's moving average, at first")
    momentum_end: float = option(1.0, ge=0, le=1, help="and at the end (cosine)")
    teacher_temp: float = option(0.07, gt=0, help="temperature of the teacher's targets")
    teacher_temp_start: float = option(0.04, gt=0, help="the same at the first step")
    teacher_temp_epochs: float = option(30, ge=0, help="epochs until --teacher-temp is reached")
    freeze_last_epochs: float = option(1, ge=0, help="epochs without training the prototypes")
    head_epochs: float = option(
        0, ge=0, help="first train the heads alone for so many epochs, the backbone frozen"
    )


class DistillOptions(CommandSettings):
    """Distillation."""

    teacher: str | None = option(
        None,
        help="a frozen teacher: a backbone's name, or last_model.pth of a train_ssl run (with its "
        "heads)",
    )
    teacher_weights: str = option("pretrained", help="weights of --teacher, as --weights")
    distill: Literal["auto", "heads", "tokens"] = option(
        "auto",
        help="heads = DINOv3's, the teacher's heads give the targets; tokens = similarities of "
        "pooled tokens to a queue and of patches within an image; auto = heads where it has any",
    )
    queue: int = option(4096, ge=16, help="teacher embeddings that tokens compares with")
    distill_temp: float = option(0.07, gt=0, help="temperature of tokens")


# Options of other training commands that would have no effect here, and what to use.
WITHOUT_EFFECT = {
    "backbone_lr": "--layer-decay and --head-epochs tell backbone and heads apart",
    "optimizer": "AdamW is the only one",
    "schedule": "the rate is a cosine (--min-lr, --cosine-epochs)",
    "scheduler_epochs": "the rate is a cosine (--min-lr, --cosine-epochs)",
    "ema": "the teacher is the average (--momentum)",
    "compile": "it is for heads on maps; leave it out",
}


class TrainSsl(TrainingOptions, CropOptions, LossOptions, CurveOptions, DistillOptions):
    """Self-distillation on unlabelled images, and distillation into small models."""

    dataset_class: ClassVar[type[Settings] | None] = ImageSet

    config: Path | None = option(
        None, flags=["-c"], help="preset or dataset YAML (default: continue.yaml with weights)"
    )
    images: str | None = option(
        None,
        help="images: a folder with all below it, a glob, WebDataset shards ('x-{000..009}.tar'), "
        "or a .txt list of paths",
    )
    data_root: Path | None = option(
        None, help="folder that the YAML's IMAGES starts from (default: its DATA_ROOT)"
    )
    model_name: str = option(
        "dinov3_vits16",
        flags=["--student"],
        help="backbone to train: a torch.hub name; with --teacher also timm/NAME or "
        "torchvision/NAME",
    )
    weights: str = option(
        "none", flags=["--weight"], help="start: a weight file, 'pretrained' or 'none' (random)"
    )
    hub: Literal["auto", "bundled", "local", "github"] = option(
        "bundled", help="where torch.hub.load looks"
    )
    repo_dir: Path | None = option(None, help="clone of the official repository")
    batch: int = option(  # type: ignore[assignment]
        64, ge=1, flags=["-b", "--batch-size"], help="images a step, over all processes together"
    )
    epochs: int = option(100, ge=1, flags=["-e"], help="number of epochs")
    epoch_steps: int = option(0, ge=0, help="optimizer steps an epoch; 0 = once through the images")
    lr: float = option(1e-3, gt=0, flags=["-lr", "--learning-rate"], help="rate before --lr-rule")
    weight_decay: float = option(0.04, ge=0, help="weight decay at the start")
    layer_decay: float = option(
        0.9, gt=0, le=1, help="learning-rate factor from each backbone layer to the one below it"
    )
    warmup_epochs: float = option(10.0, ge=0, help="epochs of linear warm-up")
    clip: float = option(3.0, ge=0, help="largest gradient norm of backbone and of each head")
    probe: Path | None = option(
        None,
        help="labelled folder (a sub-folder a class; or train/ and valid/ of such) that k-NN "
        "and a linear probe are scored on",
    )
    eval_every: int = option(
        5, ge=1, help="score --probe and draw the patches' PCA every N epochs (and after the last)"
    )
    out_dir: Path = option(Path("ssl"), help="sub-folder of outputs/ for this run")

    @model_validator(mode="after")
    def _no_idle_options(self) -> TrainSsl:
        idle = [name for name in WITHOUT_EFFECT if name in self.model_fields_set]
        idle = [n for n in idle if getattr(self, n) != type(self).model_fields[n].default]
        if idle:
            words = [f"--{n.replace('_', '-')}: {WITHOUT_EFFECT[n]}" for n in idle]
            raise ValueError("without effect in pretraining: " + "; ".join(words))
        for name in ("global_scale", "local_scale"):
            low, *high = getattr(self, name)
            if len(high) != 1 or not 0 < low <= high[0] <= 1:
                raise ValueError(f"{name}: give two shares of the image, e.g. 0.32 1")
        return self

    @classmethod
    def default_config(cls, given: Mapping[str, Any]) -> Path | None:
        """Weights alone: continued training that does not destroy them."""
        start = given.get("weights", "none")
        if start == "none" or given.get("teacher"):
            return None
        return Path("pretraining_configs/continue.yaml")

    # What checkpoints of every task say, and the engine asks for.
    cache_features: ClassVar[bool] = False

    @property
    def head(self) -> str:
        """The losses that have heads."""
        if self.teacher is not None and self.distill == "tokens":
            return "tokens"
        return "dino+ibot" if self.ibot else "dino"

    @property
    def feature_extractor(self) -> str:
        """As every checkpoint says it."""
        return "last"

    @property
    def fine_tune(self) -> bool:
        """The backbone is what is trained."""
        return True

    @property
    def imgsz(self) -> list[int]:
        """Of a global crop."""
        return [self.global_size, self.global_size]

    @property
    def resize(self) -> str:
        """Crops fill their square."""
        return "stretch"


class ExportOptions(CommandSettings):
    """Write the trained backbone (the teacher's) in Meta's layout, with a card."""

    model: Path = option(..., flags=["-m"], help="last_model.pth (or best_model.pth) of a run")
    out: Path | None = option(None, help="file to write (default: backbone.pth beside the model)")
    part: Literal["teacher", "student"] = option("teacher", help="whose backbone")


class ReplayOptions(CommandSettings):
    """Compute the losses of a batch that ended a run, in float32, term by term."""

    model: Path = option(..., flags=["-m"], help="last_model.pth of the run")
    bad_batch: Path = option(..., help="bad_batch_0.pth of the run")


class PseudoOptions(CommandSettings):
    """Pseudo-labels of unlabelled images: from k-NN on few labels, or a trained model."""

    images: str = option(..., help="unlabelled images: a folder, a glob, or a .txt list")
    model: Path | None = option(None, flags=["-m"], help="best_model.pth of a training run")
    labels: Path | None = option(
        None, help="labelled folder (a sub-folder a class) that k-NN looks at instead of --model"
    )
    model_name: str = option("dinov3_vits16", help="backbone of k-NN")
    weights: str = option("pretrained", flags=["--weight"], help="its weights")
    imgsz: int = option(224, ge=32, help="side of k-NN's images, in pixels")
    k: int = option(10, ge=1, help="neighbours that vote")
    threshold: float = option(
        0.8, ge=0, le=1, help="least confidence, of classes without their own"
    )
    thresholds: Path | None = option(None, help="YAML of {class: threshold}")
    keep: float = option(
        1.0, gt=0, le=1, help="of each class, at most this share of its images: the surest"
    )
    batch: int = option(16, ge=1, help="images at a time")
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where to compute")
    out_dir: Path = option(Path("pseudo"), help="sub-folder of outputs/ for the labels")

    @model_validator(mode="after")
    def _one_source(self) -> PseudoOptions:
        if (self.model is None) == (self.labels is None):
            raise ValueError("give --model (a trained head) or --labels (for k-NN), one of them")
        return self
