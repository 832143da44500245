"""``train_ssl.py``: from a folder of images to a backbone in outputs/<out-dir>/."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.task import TrainingTask, Validate
from .settings import TrainSsl

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.common.loaders import BatchLoader
    from ..engine.history import History, Hook
    from ..engine.job import Job

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from ..core import cli

    cli.run(lambda: train(cli.parse(TrainSsl, argv, "train_ssl.py")) and None)


def train(options: TrainSsl, hooks: Sequence[Hook] = ()) -> History:
    """Train as the options say; UserError for anything the user can mend."""
    return PretrainingTask(options, hooks).train()


class PretrainingTask(TrainingTask[TrainSsl]):
    """Self-distillation and distillation; best by k-NN where there is a --probe."""

    name = "pretraining"
    best_metric = "knn"
    written = "backbone.pth with its card backbone.yaml, last_model.pth, history.csv, *.png"

    def __init__(self, options: TrainSsl, hooks: Sequence[Hook] = ()) -> None:
        super().__init__(options, hooks)
        self.whole: Any = None  # the main process's copy of a sharded backbone
        given = {name: getattr(options, name) for name in ("weights", "teacher")}
        preset = options.config or options.default_config(given)
        log.info("preset: %s", preset or "none: the defaults are those of one_gpu.yaml")
        if options.teacher is not None:
            from .build import with_heads

            kind = "heads" if with_heads(options) else "tokens"
            self.options = options.model_copy(update={"distill": kind})

    def read(self) -> None:
        """The images, and the labelled ones of the probe."""
        from .data import find_images, say_small
        from .pictures import PcaStrip
        from .probe import Probe

        options = self.options
        self.check()
        self.paths = find_images(self.source())
        log.info("%d images", len(self.paths))
        if not options.skip_check:
            say_small(self.paths, options.global_size)
        self.probe = None
        if options.probe is not None:
            self.probe = Probe(options.probe, options.global_size, options.workers)
        self.strip = PcaStrip(self.paths, options.global_size, self.run_dir)
        self.warned: set[str] = set()

    def check(self) -> None:
        """UserError for options that contradict one another."""
        from ..backbones.catalog import CATALOG
        from ..core.errors import UserError
        from ..engine.distributed import world
        from .build import check_recipe, check_sizes

        options = self.options
        foreign = "/" in options.model_name
        if foreign and options.head != "tokens":
            raise UserError(
                f"--student {options.model_name}: other networks learn by distillation; give "
                "--teacher (and --distill tokens)"
            )
        if not foreign:
            spec = CATALOG[options.model_name]
            check_sizes(options, spec.patch or 32, options.model_name)
        if options.head != "tokens":
            check_recipe(options, world())
        for flag in ("head_epochs", "freeze_last_epochs"):
            if getattr(options, flag) > options.epochs:
                raise UserError(
                    f"--{flag.replace('_', '-')} {getattr(options, flag):g} is more than --epochs "
                    f"{options.epochs}: nothing would be trained"
                )

    def source(self) -> str:
        """Where the images are: the flag, else the YAML's. UserError without either."""
        from ..core.errors import UserError
        from ..data.common.listing import resolve_root

        options = self.options
        if options.images is not None:
            return str(options.images)
        if options.dataset is None or options.dataset.IMAGES is None:
            raise UserError("no images: give --images FOLDER (or a glob, or a .txt list of paths)")
        root = options.data_root or options.dataset.DATA_ROOT
        return str(resolve_root(root / options.dataset.IMAGES))

    def class_names(self) -> list[str]:
        """There are none."""
        return []

    def with_backbone(self, model: Any) -> Any:
        """The student; a network of another library normalises as its teacher."""
        from types import SimpleNamespace

        if self.options.head != "tokens":
            return model.student
        own = model.student if hasattr(model.student, "statistics") else model.teacher
        return SimpleNamespace(backbone=own)

    def describe(self) -> dict[str, Any]:
        """For the card."""
        data = {"source": self.source(), "images": len(self.paths)}
        return {"data": data, "steps_per_epoch": self.steps_per_epoch}

    def build_model(self) -> nn.Module:
        """Student and teacher."""
        from .build import build_self_distillation, build_token_distillation

        if self.options.head == "tokens":
            return build_token_distillation(self.options)
        return build_self_distillation(self.options)

    def loaders(self, model: Any) -> tuple[BatchLoader, None]:
        """Crops; the memory that a step will take is said here, before anything starts."""
        from ..engine.distributed import rank, world
        from .build import crop_sizes, patch_grid
        from .crops import CropTransform
        from .data import crop_loader

        options = self.options
        if options.epoch_steps:
            batches = options.epoch_steps * options.accumulate
        else:
            batches = len(self.paths) // options.batch
        self.steps_per_epoch = -(-batches // options.accumulate)
        loader = crop_loader(
            self.paths,
            CropTransform(crop_sizes(options)),
            batch=options.batch,
            steps=batches,
            workers=options.workers,
            seed=options.seed,
            grid=patch_grid(options),
            rank=rank(),
            world=world(),
        )
        if rank() == 0:
            self.say_memory(model)
        return loader, None

    def say_memory(self, model: Any) -> None:
        """Log what a step will take, and what there is."""
        import torch

        from ..engine.distributed import world
        from ..engine.precision import choose_device
        from .build import low_precision
        from .memory import estimate, tiny_step

        options = self.options
        device = choose_device(options.device)
        images = 2 if options.batch // world() > 1 else 1
        need = estimate(
            model,
            tiny_step(model, options, images),
            images,
            options.batch // world(),
            low_precision(options, device),
        )
        where = ""
        if device.type == "cuda":
            there = torch.cuda.get_device_properties(device).total_memory / 2**30
            where = f" of {there:.0f} GiB"
        log.info("memory: about %.1f GiB a process%s", need, where)
        if device.type == "cuda" and need > there:
            log.warning(
                "that is more than the device has: lower --batch (with --accumulate), --locals or "
                "--prototypes, or use --strategy fsdp"
            )

    def draw_samples(self, loader: Any, path: Any) -> None:
        """A picture of the first batch's crops, a row an image."""
        from ..data.common.images import write_image
        from ..engine.distributed import is_main
        from ..visualise.draw import contact_sheet

        if not is_main():
            return
        loader.set_epoch(0)
        batch = next(iter(loader))
        rows = [crop for crop in (batch.global_crops, batch.local_crops) if crop is not None]
        crops = [one[i] for i in range(min(8, len(batch.indices))) for row in rows for one in row]
        pictures = [crop.permute(1, 2, 0).numpy() for crop in crops]
        write_image(path, contact_sheet(pictures, sum(len(row) for row in rows), cell=128))
        log.info("transformed samples are in %s", path)

    def loss(self) -> Callable[[nn.Module, Any], dict[str, torch.Tensor]]:
        """The model's own."""

        def losses(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
            return model(batch.global_crops, batch.local_crops, batch.masks, batch.gram_crops)

        return losses

    def job_fields(self, model: Any, loader: Any) -> dict[str, Any]:
        """Curves by step, gradients clipped part by part, and no bad step applied."""
        import copy

        from ..engine.distributed import is_main
        from ..engine.precision import choose_device
        from .export import trained_backbone
        from .groups import ssl_parameter_groups, token_groups
        from .steps import SslSteps

        options = self.options
        if options.head == "tokens":
            groups = token_groups(model)
        else:
            groups = ssl_parameter_groups(
                model.student,
                layer_decay=options.layer_decay,
                patch_embed=options.patch_embed_lr,
            )
        self.model, self.steps = model, SslSteps(options, self.steps_per_epoch, model)
        if options.strategy == "fsdp" and is_main():  # it looks alone, and at the backbone alone
            self.whole = copy.deepcopy(trained_backbone(model)).to(choose_device(options.device))
        return {
            "parameter_groups": groups,
            "step_hooks": [self.steps],
            "clip_apart": True,
            "guarded": True,
            "eval_every": 1,
        }

    def validation(self, loader: Any, device: torch.device) -> Validate:
        """What was watched since the last epoch; now and then the probe and the picture."""
        from ..engine.distributed import is_main
        from ..engine.state import copy_weights
        from .export import trained_backbone
        from .watch import advice

        options = self.options

        def validate(model: Any) -> dict[str, float]:
            epoch = self.steps.done_epochs()
            backbone = trained_backbone(model)
            if options.strategy == "fsdp":
                copy_weights(backbone, self.whole)
                backbone = self.whole
            if not is_main():
                return {}
            watch = getattr(self.model, "watch", None)
            row = watch.read() if watch is not None else {}
            if row and epoch > max(1, options.freeze_last_epochs):
                self.warn(advice(row, options.prototypes, self.channels(model)))
            due = epoch % options.eval_every == 0 or epoch == options.epochs
            if due and hasattr(backbone, "tokens"):
                self.strip.draw(backbone, epoch)
                if self.probe is not None:
                    row |= self.probe(backbone)
            return row

        return validate

    def warn(self, sentences: Sequence[str]) -> None:
        """Each kind of sentence once a run."""
        for words in sentences:
            if words[:12] not in self.warned:
                self.warned.add(words[:12])
                log.warning("%s", words)

    @staticmethod
    def channels(model: Any) -> int:
        """Of the class token."""
        return int(model.student["backbone"].hub_model.embed_dim)

    def plot(self, history: History) -> None:
        """Curves after each epoch."""
        from ..visualise.plots import plot_columns, plot_losses

        plot_losses(history, self.run_dir / "loss.png")
        for name, columns in {
            "targets": ["target_entropy", "target_kl", "raw_dino_global"],
            "features": ["rankme", "centre_norm"],
            "shares": ["mean_cosine", "used_prototypes", "knn", "linear"],
        }.items():
            plot_columns(history.rows, columns, self.run_dir / f"{name}.png", name, "")

    def fit(self, job: Job) -> History:
        """Train, then write the backbone."""
        from ..engine.distributed import is_main
        from ..engine.run_folder import LAST
        from .export import export

        history = super().fit(job)
        if is_main():
            export(self.run_dir / LAST, self.run_dir / "backbone.pth")
        return history
