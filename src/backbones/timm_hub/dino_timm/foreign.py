"""Models that are neither DINOv3 nor DINOv2, behind the methods of the official hub models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

TAPS = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23), 32: (7, 15, 23, 31), 40: (9, 19, 29, 39)}


class Foreign(nn.Module):
    """A model whose "layers" are a ViT's blocks, or the stages of a network in stages; subclasses
    fill ``read`` and call ``look`` when they are built.

    patch_size: of a ViT, else None; embed_dims, strides: of its layers (of a ViT all the same);
    n_storage_tokens: registers; mean, std: of the images that its weights want; source: what
    builds it again without a network, beside its name (plain values).
    """

    patch_size: int | None
    n_storage_tokens = 0
    in_channels = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    source: dict | None = None

    def read(self, x: Tensor, layers: Sequence[int], norm: bool) -> list[tuple]:
        """Of each of the layers (from 0, ascending) the map [B, C, h, w], and the class token
        [B, C] or None where the model has none."""
        raise NotImplementedError

    @torch.no_grad()
    def look(self, n_blocks: int, size: int = 64) -> None:
        """Learn what the layers answer from two small images, one of them wide. Raises ValueError
        for a model that takes one size alone."""
        self.n_blocks, self._size = n_blocks, size
        training = self.training
        self.eval()
        for height, width in ((size, size), (size, 2 * size)):
            try:
                read = self.read(torch.zeros(1, 3, height, width), range(n_blocks), True)
            except Exception as error:  # whatever a foreign model says
                raise ValueError(f"it takes no image of {width}x{height}: {error}") from None
            maps = [value for value, _ in read]
            self.embed_dims = [value.shape[1] for value in maps]
            self.strides = [width // value.shape[-1] for value in maps]
            if [height // value.shape[-2] for value in maps] != self.strides:
                raise ValueError(f"its maps of an image of {width}x{height} are no grid of it")
        self.train(training)
        self.embed_dim = self.embed_dims[-1]
        self.block_names = block_names(self)

    @property
    def taps(self) -> tuple[int, ...]:
        """Four layers, evenly spread where the evaluations of DINOv3 name none."""
        depth = self.n_blocks
        spread = dict.fromkeys(max(0, (i + 1) * depth // 4 - 1) for i in range(4))
        return TAPS.get(depth) or tuple(spread)

    def idle(self) -> list[nn.Parameter]:
        """Parameters that no layer is made of (a pooling head): nothing to train."""
        parameters = list(self.parameters())
        before, training = [value.requires_grad for value in parameters], self.training
        self.requires_grad_(True).eval()  # batch norms are not to learn from the blank image
        with torch.enable_grad():
            image = parameters[0].new_zeros(1, self.in_channels, self._size, self._size)
            total = sum(value.sum() for value, _ in self.read(image, range(self.n_blocks), True))
            grads = torch.autograd.grad(total, parameters, allow_unused=True)
        for value, wanted in zip(parameters, before):
            value.requires_grad_(wanted)
        self.train(training)
        return [value for value, grad in zip(parameters, grads) if grad is None]

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple:
        """See TimmViT.get_intermediate_layers; a class token that is not there is the mean over
        the map."""
        layers = range(self.n_blocks - n, self.n_blocks) if isinstance(n, int) else list(n)
        outputs = []
        for value, token in self.read(x, layers, norm):
            token = value.mean((-2, -1)) if token is None else token
            outputs.append((value if reshape else value.flatten(2).transpose(1, 2), token))
        return tuple(outputs) if return_class_token else tuple(value for value, _ in outputs)

    def layer_of(self, parameter: str) -> int:
        """0 = before the first block, 1 .. = blocks, one more than there are = behind the last; by
        the order in which the model holds its parameters."""
        layer = self._block_of(parameter)
        if layer:
            return layer
        for name, _ in self.named_parameters():
            if name == parameter:
                break
            layer = self._block_of(name) or layer
        return layer + (layer == len(self.block_names))

    def _block_of(self, parameter: str) -> int:
        """Of a block the number, from 1; else 0."""
        places = enumerate(self.block_names, start=1)
        return next((i for i, name in places if parameter.startswith(f"{name}.")), 0)


def block_names(root: nn.Module) -> list[str]:
    """Where the blocks of a network are, shallow to deep: members of its ModuleLists and
    Sequentials that hold several of one class, the innermost such."""
    found: list[str] = []
    for name, child in root.named_children():
        inner = list(child.children())
        repeated = len(inner) > 1 and len({type(one) for one in inner}) == 1
        learns = repeated and any(True for _ in inner[0].parameters())
        if learns and isinstance(child, (nn.ModuleList, nn.Sequential)):
            for key, one in child.named_children():
                below = block_names(one)
                found += [f"{name}.{key}.{b}" for b in below] or [f"{name}.{key}"]
        else:
            found += [f"{name}.{b}" for b in block_names(child)]
    return found
