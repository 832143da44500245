"""Options of runs that take seconds."""

from __future__ import annotations

from src.core import cli
from src.pretraining.settings import TrainSsl

FLAGS = """--model-name dinov3_vitt16 --global-size 32 --local-size 16 --locals 2 --batch 4 --k 32
--hidden 32 --bottleneck 16 --epochs 2 --epoch-steps 2 --warmup-epochs 0.5 --teacher-temp-epochs 1
--freeze-last-epochs 0 --lr 5e-4 --lr-rule none --workers 0 --device cpu --skip-check"""


def flags(images, out_dir, *more: str) -> list[str]:
    """For the command line; of a flag that comes twice the last one counts."""
    return [*FLAGS.split(), "--images", str(images), "--out-dir", str(out_dir), *more]


def options(images, out_dir, *more: str) -> TrainSsl:
    """Parsed."""
    return cli.parse(TrainSsl, flags(images, out_dir, *more))
