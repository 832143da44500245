"""What self-distillation brings on drawn textures, beside its controls; one line a run.

python -m benchmarks.ssl controls --seeds 0 1 2 --steps 150     # DINO, iBOT, KoLeo, none of them
python -m benchmarks.ssl continued --seeds 0 1 2                # preset against the naive setting
python -m benchmarks.ssl distilled --seeds 0 1 2                # a student with and without
python -m benchmarks.ssl speed                                  # steps/s against bare passes

Results are lines of JSON in --out/results.jsonl; a run that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from src.core import cli
from src.data.common.images import write_image
from src.pretraining.probe import Probe
from src.pretraining.settings import TrainSsl
from src.pretraining.train import train

PATTERNS = ("stripes", "checks", "dots", "clouds")
SIDE = 80


def texture(kind: str, period: float, rng: np.random.Generator, grey: bool) -> np.ndarray:
    """A picture of a pattern in two random colours (or greys), uint8 [80, 80, 3]: the class is in
    its shape and scale alone."""
    y, x = np.mgrid[:SIDE, :SIDE] + rng.uniform(0, 50, (2, 1, 1))
    turn = rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    a, b = np.sin(2 * np.pi * u / period), np.sin(2 * np.pi * v / period)
    if kind == "stripes":
        value = a
    elif kind == "checks":
        value = np.sign(a * b)
    elif kind == "dots":
        value = np.minimum(a, b) * 2
    else:
        noise = rng.normal(size=(SIDE, SIDE))
        value = cv2.GaussianBlur(noise, (0, 0), period / 4)
        value = value / value.std()
    mix = (0.5 + 0.5 * value.clip(-1, 1))[..., None]
    colours = rng.uniform(0, 255, (2, 1 if grey else 3)) * np.ones((2, 3))
    if np.abs(colours[0] - colours[1]).max() < 80:
        colours[1] = 255 - colours[0]
    image = mix * colours[0] + (1 - mix) * colours[1] + rng.normal(0, 8, (SIDE, SIDE, 3))
    return image.clip(0, 255).astype(np.uint8)


def draw(folder: Path, count: int, grey: bool) -> Path:
    """8 classes (4 patterns, coarse and fine): train/ and valid/ with ``count`` and 16 of each."""
    if not (folder / "valid").is_dir():
        rng = np.random.default_rng(0)
        for split, number in (("train", count), ("valid", 16)):
            for kind in PATTERNS:
                for name, period in (("coarse", 18), ("fine", 6)):
                    for i in range(number):
                        path = folder / split / f"{kind}_{name}" / f"{i}.png"
                        write_image(path, texture(kind, period, rng, grey))
    return folder


# Sizes that two cores bear; the schedule of a short run from random weights.
SMALL = """--global-size 64 --local-size 32 --locals 2 --batch 32 --hidden 256 --bottleneck 64
--workers 0 --device cpu --skip-check --overwrite"""
SHORT = """--lr-rule none --min-lr 1e-5 --weight-decay-end 0.04 --teacher-temp-start 0.04
--momentum-end 1 --layer-decay 1 --patch-embed-lr 1 --eval-every 100"""
# The losses of each setting: DINO, iBOT (a ViT's), KoLeo.
CONTROLS = {
    "all": {"dino": 1.0, "ibot": 1.0, "koleo": 0.1},
    "dino": {"dino": 1.0, "ibot": 1.0, "koleo": 0.0},
    "koleo": {"dino": 0.0, "ibot": 0.0, "koleo": 0.1},
    "off": {"dino": 0.0, "ibot": 0.0, "koleo": 0.0},
}


def ssl_run(
    images: Path, out: Path, schedule: str = SHORT, **options: Any
) -> list[dict[str, float]]:
    """A run; its rows, one an epoch."""
    words = [*SMALL.split(), *schedule.split(), "--images", str(images), "--out-dir", str(out)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return train(cli.parse(TrainSsl, words)).rows


class Results:
    """Lines of JSON, found by what was run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = [json.loads(line) for line in lines]

    def once(self, key: dict[str, Any], make: Any) -> dict[str, Any]:
        """The row of ``key``, made by ``make() -> figures`` unless it is there."""
        for row in self.rows:
            if all(row.get(name) == value for name, value in key.items()):
                return row
        start = time.process_time()
        row = {**key, **make(), "cpu_seconds": round(time.process_time() - start, 1)}
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        return row


def controls(args: argparse.Namespace, results: Results) -> None:
    """k-NN (and linear) of each setting and seed; "off" is the random start."""
    data = draw(args.out / ("grey" if args.grey else "colour"), args.count, args.grey)
    for seed in args.seeds:
        for name in args.settings or CONTROLS:
            weights = dict(CONTROLS[name])
            if "convnext" in args.model:
                weights["ibot"] = 0.0
            steps = 1 if name == "off" else args.steps
            key = {"what": "controls", "setting": name, "seed": seed, "steps": steps}
            key |= {"model": args.model, "k": args.k, "grey": args.grey, "lr": args.lr}

            def make(weights: Any = weights, seed: int = seed, steps: int = steps) -> Any:
                *_, row = ssl_run(
                    data / "train",
                    args.out / "run",
                    **weights,
                    seed=seed,
                    epochs=1,
                    epoch_steps=steps,
                    warmup_epochs=0.1 if steps > 1 else 0,
                    teacher_temp_epochs=0.3,
                    freeze_last_epochs=0,
                    model_name=args.model,
                    prototypes=args.k,
                    lr=args.lr if steps > 1 else 1e-12,
                    momentum=args.momentum,
                    probe=data,
                )
                kept = ("knn", "linear", "rankme", "mean_cosine", "raw_dino_global", "loss")
                return {n: round(row[n], 4) for n in kept if n in row}

            results.once(key, make)
    summary(results, "controls", "setting", "knn")


def summary(results: Results, what: str, by: str, figure: str) -> None:
    """Means and spreads over the seeds."""
    rows = [row for row in results.rows if row["what"] == what and figure in row]
    for name in dict.fromkeys(row[by] for row in rows):
        values = [100 * row[figure] for row in rows if row[by] == name]
        print(
            f"{what} {name}: {figure} {statistics.mean(values):.1f} "
            f"({min(values):.1f} to {max(values):.1f}, {len(values)} seeds)"
        )


def patch_retrieval(backbone: Any, probe: Probe) -> float:
    """Share of validation patches whose nearest training patch is of the same class."""
    from src.core.structures import Size
    from src.data.common.loaders import valid_loader
    from src.data.labels.transforms import LabelTransform

    still = LabelTransform(Size(probe.side, probe.side), "stretch", training=False)
    sides = []
    for records in (probe.train[::4], probe.valid):
        patches, labels = [], []
        for batch in valid_loader(records, still, batch=64, workers=0):
            with torch.no_grad():
                maps = backbone.tokens(backbone.normalise(batch.images))[0][0]
            patches.append(maps.flatten(2).transpose(1, 2).flatten(0, 1))
            label = torch.stack([t["label"] for t in batch.targets])
            labels.append(label.repeat_interleave(maps[0, 0].numel()))
        unit = torch.nn.functional.normalize(torch.cat(patches), dim=1)
        sides.append((unit, torch.cat(labels)))
    (bank, marks), (queries, truth) = sides
    return float((marks[(queries @ bank.T).argmax(dim=1)] == truth).float().mean())


CONTINUED = {
    "preset": {"config": "pretraining_configs/continue.yaml"},
    "preset, no Gram": {"config": "pretraining_configs/continue.yaml", "gram": 0},
    "naive": {"config": "pretraining_configs/two_cores.yaml", "lr": 1e-3, "momentum": 0.99},
}


def with_start(args: argparse.Namespace) -> tuple[Path, Probe, Path]:
    """The drawn set, its probe, and a backbone trained with labels on it (once)."""
    data = draw(args.out / ("grey" if args.grey else "colour"), args.count, args.grey)
    start = args.out / f"start_{args.model}.pth"
    if not start.exists():
        supervise(args, data, start)
    return data, Probe(data, 64), start


def continued(args: argparse.Namespace, results: Results) -> None:
    """k-NN and patch retrieval before and after continuing from a start trained with labels."""
    from src.backbones.build import build_backbone

    data, probe, start = with_start(args)
    for seed in args.seeds:
        for name, preset in {"start": {}, **CONTINUED}.items():
            key = {"what": "continued", "setting": name, "seed": seed, "model": args.model}
            key["steps"] = 0 if name == "start" else args.steps

            def make(name: str = name, preset: Any = preset, seed: int = seed) -> Any:
                file, curve = start, []
                if name != "start":
                    ibot = {"ibot": 0} if "convnext" in args.model else {}
                    rows = ssl_run(
                        data / "train",
                        args.out / "run",
                        schedule="",
                        **preset | ibot,
                        weights=start,
                        model_name=args.model,
                        seed=seed,
                        prototypes=args.k,
                        epochs=6,
                        epoch_steps=args.steps // 6,
                        eval_every=1,
                        probe=data,
                    )
                    file = args.out / "run" / "backbone.pth"
                    curve = [round(row["knn"], 4) for row in rows]
                backbone = build_backbone(args.model, weights=file, hub="bundled").eval()
                figures = probe(backbone) | {"patches": patch_retrieval(backbone, probe)}
                return {n: round(v, 4) for n, v in figures.items()} | {"curve": curve}

            results.once(key, make)
    for figure in ("knn", "patches"):
        summary(results, "continued", "setting", figure)
    draw_curves(results, args.out / "continued.png")


def draw_curves(results: Results, path: Path) -> None:
    """k-NN by epoch of each continued run, from its start."""
    import matplotlib.pyplot as plt

    rows = [row for row in results.rows if row["what"] == "continued"]
    starts = {row["seed"]: row["knn"] for row in rows if row["setting"] == "start"}
    figure, axes = plt.subplots(figsize=(6, 3.5))
    for colour, name in zip(("C0", "C1", "C3"), CONTINUED):
        for row in rows:
            if row["setting"] == name:
                label = name if row["seed"] == min(starts) else None
                axes.plot(
                    [100 * k for k in (starts[row["seed"]], *row["curve"])], colour, label=label
                )
    axes.set(xlabel="epoch", ylabel="k-NN, % (higher is better)", title="Continued training")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def supervise(args: argparse.Namespace, data: Path, out: Path) -> None:
    """A start trained with labels: backbone and a linear layer, then the backbone's file."""
    from src.backbones.build import build_backbone
    from src.core.structures import Size
    from src.data.common.loaders import train_loader
    from src.data.labels.transforms import LabelTransform

    torch.manual_seed(0)
    probe = Probe(data, 64)
    backbone = build_backbone(args.model, weights="none", hub="bundled", fine_tune=True)
    layer = torch.nn.Linear(backbone.hub_model.embed_dim, len(probe.names))
    optimizer = torch.optim.AdamW([*backbone.parameters(), *layer.parameters()], lr=5e-4)
    view = LabelTransform(Size(64, 64), "stretch", "crop")
    loader = train_loader(probe.train, view, batch=32, workers=0, seed=0)
    step = 0
    while step < args.start_steps:
        loader.set_epoch(step)
        for batch in loader:
            tokens = backbone.tokens(backbone.normalise(batch.images))[0][1]
            labels = torch.stack([t["label"] for t in batch.targets])
            loss = torch.nn.functional.cross_entropy(layer(tokens), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    torch.save(backbone.hub_model.official_state(), out)


def distilled(args: argparse.Namespace, results: Results) -> None:
    """A small student's k-NN with and without a teacher that was trained with labels."""
    from src.backbones.build import build_backbone

    data, probe, start = with_start(args)
    for seed in args.seeds:
        for name in ("without", "tokens"):
            key = {"what": "distilled", "setting": name, "seed": seed, "steps": args.steps}
            key |= {"student": args.student, "teacher": args.model}

            def make(name: str = name, seed: int = seed) -> Any:
                teacher = {"teacher": args.model, "teacher_weights": start, "distill": "tokens"}
                *_, row = ssl_run(
                    data / "train",
                    args.out / "run",
                    **teacher,
                    model_name=args.student,
                    seed=seed,
                    epochs=1,
                    epoch_steps=args.steps if name == "tokens" else 1,
                    warmup_epochs=0.1 if name == "tokens" else 0,
                    lr=1e-3 if name == "tokens" else 1e-12,
                    queue=512,
                )
                file = args.out / "run" / "backbone.pth"
                backbone = build_backbone(args.student, weights=file, hub="bundled").eval()
                return {
                    n: round(v, 4) for n, v in (probe(backbone) | {"loss": row["loss"]}).items()
                }

            results.once(key, make)
    summary(results, "distilled", "setting", "knn")


def speed(args: argparse.Namespace, results: Results) -> None:
    """A run's seconds a step against the sum of its passes run bare, taken in turns."""
    from src.pretraining.build import build_self_distillation, crop_sizes, patch_grid
    from src.pretraining.crops import CropTransform
    from src.pretraining.data import crop_loader, find_images

    data = draw(args.out / "colour", args.count, False)
    words = [
        *SMALL.split(),
        *SHORT.split(),
        "--images",
        str(data / "train"),
        "--out-dir",
        str(args.out / "run"),
    ]
    words += ["--model-name", args.model, "--k", str(args.k), "--epochs", "1", "--workers", "1"]
    words += ["--epoch-steps", str(args.steps), "--warmup-epochs", "0"]
    words += ["--ibot", "0"] if "convnext" in args.model else []
    options = cli.parse(TrainSsl, words)
    torch.manual_seed(0)
    model = build_self_distillation(options).train()
    paths = find_images(str(data / "train"))
    loader = crop_loader(
        paths,
        CropTransform(crop_sizes(options)),
        batch=options.batch,
        steps=1,
        workers=0,
        seed=0,
        grid=patch_grid(options),
    )
    batch = next(iter(loader))
    shares = []
    for _ in range(3):
        bare = []
        for _ in range(args.steps):
            began = time.perf_counter()
            terms = model(batch.global_crops, batch.local_crops, batch.masks, None)
            torch.stack(list(terms.values())).sum().backward()
            model.zero_grad(set_to_none=True)
            bare.append(time.perf_counter() - began)
        row = train(options).last
        engine = row["seconds"] / args.steps
        shares.append(statistics.median(bare) / engine)
        print(f"bare {statistics.median(bare):.3f} s a step, the run {engine:.3f}", flush=True)
    print(f"the run has {100 * statistics.median(shares):.0f} % of the bare passes' steps/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = {f.__name__: f for f in (controls, continued, distilled, speed)}
    parser.add_argument("command", choices=commands)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", choices=CONTROLS)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--start-steps", type=int, default=150)
    parser.add_argument("--count", type=int, default=64, help="training images a class")
    parser.add_argument("--model", default="dinov3_convnext_atto")
    parser.add_argument("--student", default="dinov3_vitt16")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--momentum", type=float, default=0.99)
    parser.add_argument("--grey", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("outputs/ssl_benchmark"))
    args = parser.parse_args()
    args.out = args.out.resolve()
    commands[args.command](args, Results(args.out / "results.jsonl"))


if __name__ == "__main__":
    main()
