"""This project and the tutorial project (sovit-123/dinov3_stack) side by side.

    python -m benchmarks.versus_tutorial --tutorial /path/to/dinov3_stack \
        --data-root ../shared/data/bccd

Both train from the same backbone checkpoint (a seeded random one) on the same split, at the same
size, seed and epochs, in processes of their own that take turns. Theirs uses AdamW 1e-4, as its
README says, or the best of several --tutorial-lr; ours the recipe of the dataset YAML, and AdamW
1e-4 as well. With several --seed the table has means and spreads. A temporary copy of the tutorial
project runs; its code is not changed, see ``tutorial_driver``. Every run leaves a JSON file; runs
that have one are skipped when the command is given again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from src.core.config import CommandSettings, option

log = logging.getLogger("benchmarks.versus_tutorial")

ROOT = Path(__file__).resolve().parents[1]
HUB = ROOT / "src" / "backbones" / "timm_hub"
# Ours with the recipe of the dataset YAML, or with the tutorial's AdamW 1e-4 in one of the two
# resize modes; or theirs.
Side = Literal["recipe", "fit", "stretch", "tutorial"]


class VersusOptions(CommandSettings):
    """Compare with the tutorial project: mAP, training, evaluation and video speed."""

    tutorial: Path = option(..., help="folder of sovit-123/dinov3_stack (it is not changed)")
    config: Path = option(Path("detection_configs/bccd.yaml"), help="dataset YAML")
    data_root: Path | None = option(None, help="folder that the YAML's paths start from")
    model_name: str = option("dinov3_convnext_atto", help="backbone of the bundled hub")
    imgsz: int = option(320, ge=32, help="width and height of the model's input")
    epochs: int = option(6, ge=1, help="epochs of the fine-tuned runs")
    frozen_epochs: int = option(2, ge=1, help="epochs of the frozen runs (speed only)")
    batch: int = option(8, ge=1, help="images a step")
    workers: int = option(2, ge=0, help="processes that load data")
    seed: list[int] = option([42], help="seeds of the backbone, the heads and the order")
    parts: list[Literal["train", "frozen", "eval", "video"]] = option(
        ["train", "frozen", "eval", "video"],
        help="what to compare (eval is measured in the train runs)",
    )
    heads: list[Literal["ssd", "retinanet", "atss"]] = option(
        ["ssd", "retinanet"], help="heads (theirs has no atss: ours is beside their best)"
    )
    tutorial_lr: list[float] = option(
        [1e-4], help="their learning rates, the best of each head counts (their README's: 1e-4)"
    )
    sides: list[Side] = option(
        ["recipe", "tutorial", "fit", "stretch"],
        help="who runs, in turns: ours with the YAML's recipe, theirs, ours with AdamW 1e-4 and "
        "--resize fit, the same with --resize stretch",
    )
    repeats: int = option(2, ge=1, help="runs of each side in the frozen and video parts")
    frames: int = option(150, ge=2, help="frames of the video")
    video_batch: int = option(4, ge=1, help="our --batch on the video (theirs is always 1)")
    limit: int = option(0, ge=0, help="use the first N images of each split only; 0 = all")
    out_dir: Path = option(Path("versus_tutorial"), help="sub-folder of outputs/")

    @field_validator("parts", "heads", "sides", "seed", "tutorial_lr", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        words = [value] if isinstance(value, str) else value
        return [part for word in words for part in str(word).split(",") if part]


@dataclass(frozen=True)
class Run:
    """One process of one side."""

    part: Literal["train", "frozen", "video"]
    head: str
    side: Side
    seed: int
    rate: float = 1e-4
    repeat: int = 0

    @property
    def name(self) -> str:
        tried = f"-lr{self.rate:g}" if self.side == "tutorial" else ""
        return f"{self.part}-{self.head}-{self.side}-{self.repeat}-s{self.seed}{tried}"


class Bench:
    """Prepares the inputs of both sides and runs what has no result yet."""

    def __init__(self, options: VersusOptions) -> None:
        from src.core.paths import output_folder

        self.options = options
        o = options
        setting = f"{o.model_name}-{o.imgsz}-b{o.batch}-e{o.epochs}"
        setting += f"-n{o.limit}" if o.limit else ""
        self.folder = output_folder(o.out_dir).resolve() / setting
        self.folder.mkdir(parents=True, exist_ok=True)
        self.copy = self.folder / "tutorial"
        self.video = self.folder / "video.mp4"

    def prepare(self) -> None:
        """The backbone checkpoint, the copy of the tutorial project, its data and the video."""
        for seed in self.options.seed:
            save_random_backbone(self.options.model_name, seed, self.weights(seed))
        self._copy_tutorial()
        if "video" in self.options.parts and not self.video.exists():
            make_video(self._records("valid"), self.video, self.options.frames)

    def weights(self, seed: int) -> Path:
        """The backbone checkpoint of a seed."""
        return self.folder / "weights" / f"{self.options.model_name}_seed{seed}.pth"

    def _records(self, split: Literal["train", "valid"]) -> list[Any]:
        from src.core.config import load_yaml, validate
        from src.data.boxes.reader import read_split
        from src.data.boxes.settings import BoxDataset

        content = load_yaml(self.options.config)
        content.pop("TRAIN", None)
        self.dataset = validate(BoxDataset, content, str(self.options.config))
        return read_split(self.dataset, split, self.options.data_root)[0][
            : self.options.limit or None
        ]

    def _copy_tutorial(self) -> None:
        """Flat folders of links in place of the split files, which it does not read."""
        import yaml

        if (self.copy / "detection_configs" / "versus.yaml").exists():
            return
        if not (self.options.tutorial / "train_detection.py").is_file():
            from src.core.errors import UserError

            raise UserError(
                f"--tutorial {self.options.tutorial} has no train_detection.py; clone "
                "https://github.com/sovit-123/dinov3_stack there"
            )
        shutil.rmtree(self.copy, ignore_errors=True)
        unwanted = shutil.ignore_patterns(".git", "outputs", "readme_images", "input")
        shutil.copytree(self.options.tutorial, self.copy, ignore=unwanted)
        config: dict[str, Any] = {"VISUALIZE_TRANSFORMED_IMAGES": False}
        for key, split in (("TRAIN", "train"), ("VALID", "valid")):
            images, annotations = (self.copy / "data" / split / n for n in ("images", "xml"))
            config |= {f"{key}_IMG": str(images), f"{key}_ANNOT": str(annotations)}
            images.mkdir(parents=True)
            annotations.mkdir()
            for record in self._records(split):  # type: ignore[arg-type]
                (images / record.image.name).symlink_to(record.image.resolve())
                link = annotations / f"{record.image.stem}.xml"
                link.symlink_to(record.annotation.resolve())
        config["CLASSES"] = list(self.dataset.names)
        folders = f"DINOv3_REPO={HUB}\nDINOv3_WEIGHTS={self.weights(0).parent}\n"
        (self.copy / ".env").write_text(folders)
        (self.copy / "detection_configs" / "versus.yaml").write_text(yaml.safe_dump(config))

    # One run

    def result(self, run: Run) -> dict[str, Any] | None:
        """What a finished run found."""
        path = self.folder / "runs" / f"{run.name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def run(self, run: Run) -> dict[str, Any]:
        """The result of a run, which takes place when there is none yet. UserError: it failed."""
        known = self.result(run)
        if known is not None:
            return known
        path = self.folder / "runs" / f"{run.name}.json"
        path.parent.mkdir(exist_ok=True)
        command = self._video(run, path) if run.part == "video" else self._train(run, path)
        log.info("%s ...", run.name)
        began = time.monotonic()
        self._execute(command, path.with_suffix(".log"))
        result = self.result(run)
        assert result is not None, f"{run.name} left no result"
        log.info("%s took %.0f s: %s", run.name, time.monotonic() - began, summary(result))
        return result

    def _execute(self, command: Sequence[Any], log_file: Path) -> None:
        from src.core.errors import UserError

        kept = {k: v for k, v in os.environ.items() if not k.upper().startswith("DINOV")}
        environment = {**kept, "MPLBACKEND": "Agg", "NO_ALBUMENTATIONS_UPDATE": "1"}
        words = [sys.executable, "-m", *map(str, command)]
        with open(log_file, "w", encoding="utf-8") as output:
            done = subprocess.run(
                words, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        if done.returncode:
            tail = "\n".join(log_file.read_text(encoding="utf-8").splitlines()[-15:])
            raise UserError(
                f"{' '.join(words[1:4])} failed ({done.returncode}), see {log_file}:\n{tail}"
            )

    def _train(self, run: Run, path: Path) -> list[Any]:
        o = self.options
        epochs = o.frozen_epochs if run.part == "frozen" else o.epochs
        flags: list[Any] = ["--model-name", o.model_name, "--imgsz", o.imgsz, o.imgsz]
        flags += ["--epochs", epochs, "--batch", o.batch, "--workers", o.workers]
        flags += ["--head", run.head]
        flags += ["--lr", run.rate, "--optimizer", "AdamW"] if run.side != "recipe" else []
        flags += ["--fine-tune"] if run.part == "train" else []
        if run.side == "tutorial":
            flags += ["--weights", self.weights(run.seed).name, "--out-dir", run.name]
            flags += ["--config", "detection_configs/versus.yaml"]
            return self._theirs(run, path, "train_detection.py", flags)
        flags += [
            "--weights",
            self.weights(run.seed),
            "--out-dir",
            self.folder / run.name,
            "--overwrite",
        ]
        flags += ["--config", o.config, "--hub", "local", "--repo-dir", HUB]
        flags += ["--resize", "stretch" if run.side == "stretch" else "fit"]
        # The YAML's recipe is switched off by naming its keys' defaults.
        flags += [] if run.side == "recipe" else self._plain_recipe()
        flags += ["--feature-extractor", "multi", "--seed", run.seed, "--skip-check"]
        flags += ["--data-root", o.data_root] if o.data_root else []
        return ["benchmarks.our_driver", "train", path, o.limit, *flags]

    def _plain_recipe(self) -> list[Any]:
        """Flags that put back what our defaults and the YAML's TRAIN mapping do beyond theirs."""
        from src.core.config import load_yaml
        from src.detection.settings import TrainDetection
        from src.engine.settings import TrainingOptions

        given = {"lr", "optimizer", "head", "epochs", "batch", "fine_tune", "model_name", "imgsz"}
        recipe = {
            str(key).replace("-", "_") for key in load_yaml(self.options.config).get("TRAIN", {})
        }
        ours, plain = TrainDetection.model_fields, TrainingOptions.model_fields
        recipe |= {name for name in plain if ours[name].default != plain[name].default}
        flags: list[Any] = []
        for name in sorted(recipe - given - {"out_dir", "backbone_lr", "FINE_TUNE"}):
            flags += [f"--{name.replace('_', '-')}", {**ours, **plain}[name].default]
        return flags

    def _theirs(self, run: Run, path: Path, script: str, flags: list[Any]) -> list[Any]:
        size = self.options.imgsz
        return ["benchmarks.tutorial_driver", self.copy, path, size, run.seed, script, *flags]

    def _video(self, run: Run, path: Path) -> list[Any]:
        """Each side on a model that it trained itself (the train part, run when it must be)."""
        trained = replace(run, part="train", repeat=0)
        ours = [replace(trained, side=side) for side in ("recipe", "fit")]
        if run.side == "stretch":  # speed alone: any model of ours does, run stretched
            trained = next((one for one in ours if self.result(one)), trained)
        self.run(trained)
        o = self.options
        if run.side == "tutorial":
            folder = self.copy / "outputs" / trained.name
            best = folder / "best_model.pth"  # not written while its mAP is 0
            model = best if best.exists() else folder / "last_model.pth"
            flags = ["--model", model, "--model-name", o.model_name, "--head", run.head]
            flags += ["--input", self.video, "--imgsz", o.imgsz, "--out-dir", run.name]
            flags += ["--config", "detection_configs/versus.yaml"]
            return self._theirs(run, path, "infer_det_video.py", flags)
        model = self.folder / trained.name / "best_model.pth"
        out_dir = self.folder / run.name
        resize = "stretch" if run.side == "stretch" else "fit"
        arguments = [path, model, self.video, out_dir, resize, o.video_batch]
        return ["benchmarks.our_driver", "video", *arguments]

    def plan(self) -> list[Run]:
        """All runs of the chosen parts; the sides take turns."""
        o, runs = self.options, []
        if {"train", "eval"} & set(o.parts):
            runs += [
                Run("train", head, side, seed, rate)
                for seed in o.seed
                for head in o.heads
                for side in o.sides
                for rate in (o.tutorial_lr if side == "tutorial" else [1e-4])
            ]
        for part in ("frozen", "video"):
            if part in o.parts:
                runs += [
                    Run(part, head, side, o.seed[0], o.tutorial_lr[0], repeat)  # type: ignore[arg-type]
                    for head in o.heads
                    for repeat in range(o.repeats)
                    for side in o.sides
                ]
        return [run for run in runs if (run.head, run.side) != ("atss", "tutorial")]


def save_random_backbone(name: str, seed: int, path: Path) -> None:
    """A checkpoint of random weights, in the hub's own names; both sides load it through it."""
    import torch

    from src.backbones.catalog import CATALOG
    from src.backbones.hub import load_hub_model
    from src.core.files import atomic_path

    if not path.exists():
        torch.manual_seed(seed)
        model = load_hub_model(CATALOG[name], "none", "bundled")
        with atomic_path(path) as temporary:
            torch.save(model.state_dict(), temporary)


def make_video(records: Sequence[Any], path: Path, frames: int, still: int = 15) -> None:
    """An H.264 video that pans over the photographs, 15 frames each, at their own size."""
    import cv2

    from src.core.structures import Size
    from src.data.common.images import read_image
    from src.predict.video import VideoWriter

    height, width = read_image(records[0].image).shape[:2]
    writer = VideoWriter(path, Size(width, height), Fraction(25))
    for number in range(frames):
        record = records[number // still % len(records)]
        image = cv2.resize(read_image(record.image), (width, height))
        image = cv2.copyMakeBorder(image, 0, 0, 0, 2 * still, cv2.BORDER_REFLECT_101)
        left = 2 * (number % still)
        writer.write(image[:, left : left + width].copy())
    writer.close()


def summary(result: dict[str, Any]) -> str:
    """One line on a run."""
    if "frames" in result:
        return f"{result['frames'] / result['seconds']:.1f} FPS"
    last = result["epochs"][-1]
    rate = last["train_images"] / last["train_seconds"]
    return f"{rate:.2f} images/s, mAP {last['mAP']:.3f}, mAP50 {last['mAP50']:.3f}"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    cli.run(lambda: compare(cli.parse(VersusOptions, argv, "python -m benchmarks.versus_tutorial")))


def compare(options: VersusOptions) -> None:
    """Run all parts that have no result yet; print and write the table."""
    from benchmarks.versus_table import write_table

    bench = Bench(options)
    bench.prepare()
    results = {run.name: bench.run(run) for run in bench.plan()}
    text = write_table(bench.folder, options, results)
    log.info("\n%s\nwritten to %s", text, bench.folder)


if __name__ == "__main__":
    main()
