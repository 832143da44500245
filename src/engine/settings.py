"""Options of every training command (light: nothing heavy is imported here)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..core.config import PRECISION_HELP, CommandSettings, Precision, option
from ..core.paths import output_folder
from .run_folder import CONFIG


class TrainingOptions(CommandSettings):
    """Training."""

    epochs: int = option(10, ge=1, flags=["-e"], help="number of epochs")
    batch: int | None = option(
        None,
        ge=1,
        flags=["-b", "--batch-size"],
        help="images a step, over all processes together (default: 16 on CUDA, 4 on the CPU)",
    )
    accumulate: int = option(1, ge=1, help="optimizer step every N batches")
    lr: float = option(1e-4, gt=0, flags=["-lr", "--learning-rate"], help="learning rate")
    backbone_lr: float | None = option(
        None,
        gt=0,
        help="learning rate of what is trained of the backbone (default: that of --lr where it is "
        "named, of random weights and of adapters; else a tenth of it)",
    )
    layer_decay: float = option(
        1.0, gt=0, le=1, help="learning-rate factor from each backbone layer to the one below it"
    )
    weight_decay: float = option(1e-2, ge=0, help="weight decay (none on norms and biases)")
    optimizer: Literal["AdamW", "SGD"] = option("AdamW", help="optimizer")
    schedule: Literal["multistep", "cosine", "flat-cosine"] = option(
        "multistep",
        help="learning rate: divided by 10 at --scheduler-epochs, cosine to 0, or flat for the "
        "first half and then cosine",
    )
    scheduler_epochs: list[int] = option(
        [1000], help="epochs after which multistep divides the learning rate by 10"
    )
    warmup_epochs: float = option(0.0, ge=0, help="epochs of linear warm-up")
    clip: float = option(0.0, ge=0, help="largest gradient norm; 0 = no clipping")
    ema: float = option(
        0.0, ge=0, lt=1, help="decay of the moving average of the weights, e.g. 0.999; 0 = none"
    )
    precision: Precision = option("auto", help=PRECISION_HELP)
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where to train")
    strategy: Literal["auto", "ddp", "fsdp"] = option(
        "auto", help="under torchrun: replicated (ddp) or sharded (fsdp) training; auto = ddp"
    )
    compile: bool = option(
        False,
        help="compile backbone, neck and head (torch.compile): worth it for long runs, the first "
        "batch of each shape waits up to a minute",
    )
    workers: int = option(4, ge=0, help="processes that load data")
    seed: int = option(42, ge=0, help="seed of weights, order and augmentation")
    eval_every: int = option(1, ge=1, help="evaluate every N epochs (and after the last)")
    logger: Literal["tensorboard", "wandb", "mlflow", "none"] = option(
        "tensorboard", help="where the figures of each epoch go, beside history.csv and plots"
    )
    save_samples: bool = option(False, help="write a batch of transformed samples as a picture")
    skip_check: bool = option(False, help="skip the quick check of the data before training")
    out_dir: Path = option(..., help="sub-folder of outputs/ for this run")
    head_only: bool = option(
        False,
        help="leave the frozen backbone out of the checkpoints: small files, which inference "
        "completes with the weights that they name",
    )
    init: Path | None = option(
        None,
        help="start from a trained model of this task, best_model.pth, its run's folder or a "
        "published hub:NAME: backbone, neck, and of the head what fits and the classes of the same "
        "name",
    )
    resume: bool = option(
        False,
        help="go on from last_model.pth of --out-dir, with the options of its config.yaml; those "
        "given here go before them",
    )
    overwrite: bool = option(False, help="replace an earlier run in --out-dir")

    @classmethod
    def earlier(cls, given: Mapping[str, Any]) -> Path | None:
        """The config.yaml of the run that --resume goes on with."""
        folder = output_folder(given.get("out_dir") or cls.model_fields["out_dir"].default)
        path = folder / CONFIG
        return path if given.get("resume") and path.is_file() else None
