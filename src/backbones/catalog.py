"""The table of backbones: one row a torch.hub name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.registry import Registry


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of the training images' red, green and blue, in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        return f"mean {self.mean}, std {self.std}"


IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# By what Meta's file names say of the data: of all others they are ImageNet's
# (https://github.com/facebookresearch/dinov3#image-transforms).
STATISTICS = {"sat493m": Statistics((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))}


def statistics_of(weights: str) -> Statistics:
    """What a weight file wants its images normalised by, by its name."""
    return next((found for word, found in STATISTICS.items() if word in weights), IMAGENET)


@dataclass(frozen=True)
class BackboneSpec:
    """What is known of a backbone without loading it.

    dims: channels (ViT: one number; ConvNeXt: one a stage); depths likewise, in blocks; patch:
    pixels of a ViT patch (None for ConvNeXt); taps: blocks (from 0) whose maps ``multi`` takes,
    after the linear and detection evaluations of DINOv3; file: Meta's checkpoint file;
    parameters: in millions; strides: of the stages of a network that is no ViT.
    """

    name: str
    family: str
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    patch: int | None
    taps: tuple[int, ...]
    file: str | None
    parameters: float
    swiglu: bool = False
    registers: int = 0
    strides: tuple[int, ...] = (4, 8, 16, 32)

    @property
    def is_vit(self) -> bool:
        """True for a vision transformer, False for a ConvNeXt."""
        return self.patch is not None

    @property
    def last_taps(self) -> tuple[int, ...]:
        """The last four blocks of a ViT; the stages of a ConvNeXt."""
        return tuple(range(self.depths[0] - 4, self.depths[0])) if self.is_vit else self.taps

    @property
    def description(self) -> str:
        """For messages: kind, channels and blocks."""
        if self.is_vit:
            extras = [f"patch {self.patch}"]
            extras += ["SwiGLU"] if self.swiglu else []
            extras += [f"{self.registers} registers"] if self.registers else ["no registers"]
            return f"ViT with {self.dims[0]} channels, {self.depths[0]} blocks, {', '.join(extras)}"
        return f"ConvNeXt with {self.dims} channels, {self.depths} blocks"


_TAPS = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23), 32: (7, 15, 23, 31), 40: (9, 19, 29, 39)}


def _v3(size, dim, depth, parameters, digest, swiglu=False) -> BackboneSpec:  # type: ignore[no-untyped-def]
    file = digest and f"dinov3_{size}_pretrain_lvd1689m-{digest}.pth"
    return BackboneSpec(
        f"dinov3_{size}", "dinov3", (dim,), (depth,), 16, _TAPS[depth], file, parameters, swiglu, 4
    )


def _v2(letter, dim, depth, parameters, registers) -> BackboneSpec:  # type: ignore[no-untyped-def]
    name = f"dinov2_vit{letter}14"
    file = f"{name}{'_reg4' if registers else ''}_pretrain.pth"
    return BackboneSpec(
        f"{name}{'_reg' if registers else ''}", "dinov2", (dim,), (depth,), 14, _TAPS[depth],
        file, parameters, letter == "g", registers,
    )  # fmt: skip


def _next(size, dims, depths, parameters, digest) -> BackboneSpec:  # type: ignore[no-untyped-def]
    file = digest and f"dinov3_convnext_{size}_pretrain_lvd1689m-{digest}.pth"
    return BackboneSpec(
        f"dinov3_convnext_{size}", "dinov3", dims, depths, None, (0, 1, 2, 3), file, parameters
    )


_ROWS = [
    _v3("vits16", 384, 12, 21.6, "08c60483"),
    _v3("vits16plus", 384, 12, 28.7, "4057cbaa", swiglu=True),
    _v3("vitb16", 768, 12, 85.7, "73cec8be"),
    _v3("vitl16", 1024, 24, 303.1, "8aa4cbdd"),
    _v3("vitl16plus", 1024, 24, 403.8, "46503df0", swiglu=True),
    _v3("vith16plus", 1280, 32, 840.6, "7c1da9a5", swiglu=True),
    _v3("vit7b16", 4096, 40, 6716.0, "a955f4ea", swiglu=True),
    _next("tiny", (96, 192, 384, 768), (3, 3, 9, 3), 27.8, "21b726bb"),
    _next("small", (96, 192, 384, 768), (3, 3, 27, 3), 49.5, "296db49d"),
    _next("base", (128, 256, 512, 1024), (3, 3, 27, 3), 87.6, "801f2ba9"),
    _next("large", (192, 384, 768, 1536), (3, 3, 27, 3), 196.2, "61fa432d"),
    *[
        _v2(letter, dim, depth, parameters, registers)
        for registers in (0, 4)
        for letter, dim, depth, parameters in (
            ("s", 384, 12, 22.1),
            ("b", 768, 12, 86.6),
            ("l", 1024, 24, 304.4),
            ("g", 1536, 40, 1136.5),
        )
    ],
    # Of the bundled hub alone, without published weights: for demonstrations and tests.
    _v3("vitt16", 192, 12, 5.5, None),
    _next("atto", (40, 80, 160, 320), (2, 2, 6, 2), 3.4, None),
    # DEIMv2's own, distilled from DINOv3-S: no registers (nor layer scale or final norm). Taps:
    # https://github.com/Intellindust-AI-Lab/DEIMv2/blob/main/configs/deimv2/deimv2_dinov3_s_coco.yml
    *[
        BackboneSpec(name, "dinov3", (dim,), (12,), 16, (3, 7, 11), None, parameters)
        for name, dim, parameters in (
            ("deimv2_vitt16", 192, 5.5),
            ("deimv2_vittplus16", 256, 9.7),
        )
    ],
]

CATALOG: Registry[BackboneSpec] = Registry("backbone (--model-name)", {r.name: r for r in _ROWS})

# --model-name with one of these before the name: a model of another library's.
FOREIGN = ("timm:", "hf:")


def is_foreign(name: str) -> bool:
    """Whether a backbone is named as another library's; UserError for a name of the catalog that
    is none."""
    return name.startswith(FOREIGN) or CATALOG[name] is None


def foreign_spec(name: str, hub_model: Any) -> BackboneSpec:
    """The row of a model of another library's, as the bundled hub found it (``dino_timm.foreign``).

    depths: its blocks, all together.
    """
    patch, dims = hub_model.patch_size, tuple(hub_model.embed_dims)
    taps = hub_model.taps if patch else tuple(range(len(dims)))
    count = sum(parameter.numel() for parameter in hub_model.parameters())
    return BackboneSpec(
        name,
        name.partition(":")[0],
        dims[-1:] if patch else dims,
        (len(hub_model.block_names),),
        patch,
        taps,
        None,
        count / 1e6,
        registers=hub_model.n_storage_tokens,
        strides=tuple(hub_model.strides),
    )
