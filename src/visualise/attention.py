"""What the class token of a ViT attends to: per head, per block, and rolled out over the blocks.

The kernels of PyTorch give no weights. The queries and keys that each block hands to
``scaled_dot_product_attention`` (after rotary positions and norms) are taken on their way, and
softmax(q k^T / sqrt(d)) is computed from them; this holds for every model that calls it, the
bundled hub's and the official clones' alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..backbones.base import Backbone
from ..core.errors import UserError
from ..data.common.images import list_images
from .draw import contact_sheet
from .overlay import heat_overlay
from .patches import load_backbone, make_predictor, whole_patches
from .settings import AttentionOptions


class TakeAttention(TorchFunctionMode):
    """While active: ``take(block, q, k, scale)`` for each attention, in the order of the blocks.

    q, k: [B, heads, N, d]; scale: what q k^T is multiplied by.
    """

    def __init__(self, take: Callable[[int, Tensor, Tensor, float], None]) -> None:
        super().__init__()
        self.take = take
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            q, k = args[0], args[1]
            self.take(self.count, q, k, kwargs.get("scale") or 1 / math.sqrt(q.shape[-1]))
            self.count += 1
        return func(*args, **kwargs)


def attention_weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """softmax(q k^T * scale), float32: [B, heads, N, d] x 2 -> [B, heads, N, N], rows sum to 1."""
    return (q.float() @ k.float().transpose(-2, -1) * scale).softmax(-1)


class AttentionModel(nn.Module):
    """list of uint8 [3, H, W] -> a dictionary for each.

    blocks: float32 [K, heads, h, w], the class token's attention on the patches in the wanted
    blocks (what it gives to itself and to registers is left out, so a head sums to 1 at most);
    means: [L, h, w], every block's mean over the heads; rollout: [h, w].

    Rollout: Abnar and Zuidema, https://arxiv.org/abs/2005.00928 (the mean over the heads, half
    of it the identity for the residual, multiplied over the blocks).
    """

    def __init__(self, backbone: Backbone, blocks: Sequence[int]) -> None:
        super().__init__()
        if not backbone.spec.is_vit or not hasattr(backbone.hub_model, "blocks"):
            raise UserError(
                f"{backbone.name} has no attention to show: choose a ViT of Meta's with "
                "--model-name, or use the commands pca or similarity"
            )
        depth = backbone.spec.depths[0]
        wrong = [block for block in blocks if not -depth <= block < depth]
        if wrong:
            raise UserError(
                f"--blocks {' '.join(map(str, wrong))}: {backbone.name} has the blocks 0 to "
                f"{depth - 1} (or -1, the last, to -{depth})"
            )
        self.backbone = backbone
        self.depth = depth
        self.wanted = [block % depth for block in blocks]

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """One image after another: the weights of one block of one image are held at a time."""
        return [self._one(image) for image in images]

    def _one(self, image: Tensor) -> dict[str, Tensor]:
        x = whole_patches(image, self.backbone.size_divisor)[None]
        patch = self.backbone.size_divisor
        h, w = x.shape[-2] // patch, x.shape[-1] // patch
        rows: list[Tensor] = []  # the class token's [heads, N]
        rolled: list[Tensor] = []

        def take(block: int, q: Tensor, k: Tensor, scale: float) -> None:
            weights = attention_weights(q, k, scale)[0]
            rows.append(weights[:, 0])
            mean = weights.mean(0)
            step = 0.5 * mean + 0.5 * torch.eye(len(mean), device=mean.device)
            rolled[:] = [step @ rolled[0] if rolled else step]

        with TakeAttention(take) as taken:
            self.backbone(self.backbone.normalise(x))
        # A model with taps before its last block may stop there; all of ours run to the end.
        if taken.count != self.depth or rows[0].shape[-1] < h * w:
            raise UserError(
                f"{self.backbone.name}: this hub's attention does not go through PyTorch's "
                "scaled_dot_product_attention, so its weights cannot be seen; use --hub bundled"
            )
        cells = torch.stack([row[:, -h * w :].reshape(-1, h, w) for row in rows])
        return {
            "blocks": cells[self.wanted],
            "means": cells.mean(1),
            "rollout": rolled[0][0, -h * w :].reshape(h, w),
        }


def _heat(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """From the map's least to its largest value, as in DINO: each map has a scale of its own."""
    return heat_overlay(image, values, float(values.min()), float(values.max()))


def attention_sheet(
    image: np.ndarray, result: dict[str, Tensor], wanted: Sequence[int], *, cell: int = 320
) -> np.ndarray:
    """A row a block: the mean over the heads, then each head; above, the image and the rollout."""
    blocks = result["blocks"].numpy()
    means = result["means"].numpy()
    heads = blocks.shape[1]
    columns = heads + 1
    blank = np.full_like(image, 245)
    pictures = [image, _heat(image, result["rollout"].numpy())] + [blank] * (columns - 2)
    captions = ["image", "rollout"] + [""] * (columns - 2)
    for block, maps in zip(wanted, blocks):
        pictures += [_heat(image, means[block])] + [_heat(image, values) for values in maps]
        captions += [f"block {block} mean"] + [f"head {head}" for head in range(heads)]
    return contact_sheet(pictures[: len(captions)], columns, captions, cell=cell)


def depth_sheet(image: np.ndarray, result: dict[str, Tensor], *, cell: int = 320) -> np.ndarray:
    """The image, the mean over the heads of every block, and the rollout."""
    means = result["means"].numpy()
    pictures = [image, *(_heat(image, m) for m in means), _heat(image, result["rollout"].numpy())]
    captions = ["image", *(f"block {i}" for i in range(len(means))), "rollout"]
    return contact_sheet(pictures, math.ceil(math.sqrt(len(pictures))), captions, cell=cell)


def run_attention(options: AttentionOptions) -> int:
    """The command: ``<stem>_attention.png`` for each image (with --save-arrays an .npz, too), or
    an .mp4. Returns the exit code."""
    from ..core.paths import output_folder
    from .runs import render_images, render_video

    video = options.video
    if video and options.save_arrays:
        raise UserError("--save-arrays is for images: leave it out, or give the video's frames")
    paths = [] if video else list_images(options.input)
    model = AttentionModel(load_backbone(options), options.blocks)
    predictor = make_predictor(model, options)

    def render(image: np.ndarray, result: dict[str, Tensor]) -> np.ndarray:
        if options.all_blocks:
            return depth_sheet(image, result)
        return attention_sheet(image, result, model.wanted)

    def arrays(result: dict[str, Tensor]) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in result.items()}

    folder = output_folder(options.out_dir)
    if video:
        name = "attention.mp4"
        return render_video(predictor, video, folder, name, render, options.max_frames)
    wanted = arrays if options.save_arrays else None
    return render_images(predictor, paths, folder, "attention.png", render, wanted)
