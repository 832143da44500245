"""What every training command does, once and in one order; each task fills in the steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from .run_folder import LAST
from .settings import TrainingOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .history import History, Hook
    from .job import Job

log = logging.getLogger(__name__)
Options = TypeVar("Options", bound=TrainingOptions)
Validate = Callable[["nn.Module"], "dict[str, float] | None"]


class TrainingTask(Generic[Options]):
    """A training command: ``train`` takes the steps below in their order.

    name: the task's, as checkpoints say it; best_metric: decides which epoch is the best;
    written: what the last line says of the run's folder.
    """

    name: ClassVar[str]
    best_metric: str
    written = "best_model.pth, last_model.pth, history.csv, *.png"

    def __init__(self, options: Options, hooks: Sequence[Hook] = ()) -> None:
        from ..core.paths import output_folder
        from .precision import choose_batch

        if options.head_only:
            from .saving import require_frozen

            require_frozen(options, self.name)
        if options.batch is None:
            batch = choose_batch(None, options.device)
            options = options.model_copy(update={"batch": batch})
        self.hooks = hooks  # called with the History after each epoch, beside the plots
        self.run_dir: Path = output_folder(options.out_dir)
        if options.resume and (self.run_dir / LAST).is_file():
            self.initial = None  # the run's own weights come
        else:
            self.initial = options.init
        if self.initial is not None:
            from .initial import like_initial

            options = like_initial(options, self.name)
        self.options: Any = options  # a backbone's and the cache's as well

    # The steps

    def read(self) -> None:
        """Read both splits, checked. Raises UserError with what is wrong in them."""
        raise NotImplementedError

    def build_model(self) -> Any:
        """The model that the options name, with its loss."""
        raise NotImplementedError

    def loaders(self, model: Any) -> tuple[Any, Any]:
        """This process's share of training and validation, of images."""
        raise NotImplementedError

    def draw_samples(self, loader: Any, path: Path) -> None:
        """A picture of the first training batch as the model gets it, with its truth."""
        raise NotImplementedError

    def cached(self, loaders: tuple[Any, Any], model: Any) -> tuple[Any, Any]:
        """The same loaders of kept features; only with --cache-features."""
        raise NotImplementedError

    def validation(self, loader: Any, device: torch.device) -> Validate:
        """What scores a model on the validation split (and may draw some of it)."""
        raise NotImplementedError

    def class_names(self) -> list[str]:
        """As the checkpoint keeps them."""
        return self.options.dataset.names

    def tune(self, model: Any) -> None:
        """Train of the backbone what --tune says; weights that were trained before are changed
        with care, adapters start as nothing and learn as a head does."""
        options = self.options
        how = getattr(options, "tune", "frozen")
        if how == "lora" or how.startswith("last"):
            model.backbone.tune(how, options.lora_rank)
        if how == "all" or how.startswith("last"):
            named = {"lr", "backbone_lr"} & options.model_fields_set
            if not named and (self.initial is not None or not model.backbone.looks_random()):
                self.options = options.model_copy(update={"backbone_lr": options.lr / 10})

    def describe(self) -> dict[str, Any]:
        """More fields of the checkpoint."""
        return {}

    def loss(self) -> Callable[[nn.Module, Any], dict[str, torch.Tensor]]:
        """What is minimised: the model's own losses."""
        from .job import model_loss

        return model_loss

    def with_backbone(self, model: Any) -> Any:
        """What has the ``backbone`` that inference will use."""
        return model

    def job_fields(self, model: Any, loader: Any) -> dict[str, Any]:
        """More fields of the Job: parameter groups, step hooks ..."""
        return {}

    def compile(self, model: Any) -> None:
        """--compile."""
        from .compiling import compile_training

        compile_training(model, self.options.strategy)

    def plot(self, history: History) -> None:
        """Curves, after each epoch."""
        raise NotImplementedError

    def fit(self, job: Job) -> History:
        """The training itself."""
        from .loop import fit

        return fit(job)

    # Their order

    def wants_samples(self) -> bool:
        """Whether to draw the first batch."""
        return self.options.save_samples

    def train(self) -> History:
        """Train as the options say; UserError for anything the user can mend."""

        from .job import Job
        from .loggers import require_logger
        from .loop import seed_everything
        from .precision import choose_device
        from .run_folder import check_run_folder
        from .summary import describe, say_size

        options = self.options
        require_logger(options.logger)
        # Before the long preparations: a folder that is taken or cannot be written.
        check_run_folder(self.run_dir, resume=options.resume, overwrite=options.overwrite)
        self.read()
        seed_everything(options.seed)
        if self.initial is None:
            model = self.build_model()
        else:
            from .checkpoint import no_word_on_weights
            from .initial import start_from

            with no_word_on_weights():
                model = self.build_model()
            start_from(model, self.initial, self.class_names())
        self.tune(model)
        options = self.options  # a task may fill in what suits the model
        say_size(model)
        loaders = self.loaders(model)
        if self.wants_samples():
            self.draw_samples(loaders[0], self.run_dir / "samples.png")
        if options.cache_features:
            loaders = self.cached(loaders, model)
        if options.compile:
            self.compile(model)
        device = choose_device(options.device)
        job = Job(
            options=options,
            run_dir=self.run_dir,
            model=model,
            train_loader=loaders[0],
            loss=self.loss(),
            validate=self.validation(loaders[1], device),
            best_metric=self.best_metric,
            describe=describe(options, self.name, self.class_names(), self.with_backbone(model))
            | self.describe(),
            hooks=[self.plot, *self.hooks],
            head_only=options.head_only,
            hold=getattr(options, "unfreeze_epoch", 1) - 1,
            **{"eval_every": options.eval_every, **self.job_fields(model, loaders[0])},
        )
        history = self.fit(job)
        log.info("the run is in %s: %s", self.run_dir, self.written)
        return history
