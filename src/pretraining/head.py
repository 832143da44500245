"""The projection head of DINO and iBOT."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ProjectionHead(nn.Module):
    """An MLP with GELU into a bottleneck, L2 norm, linear prototypes without bias.

    As DINOv3's (https://arxiv.org/abs/2508.10104): no weight norm on the prototypes, whose rows
    keep the length that training gives them.
    """

    def __init__(
        self,
        channels: int,
        prototypes: int,
        *,
        hidden: int = 2048,
        bottleneck: int = 256,
        layers: int = 3,
    ) -> None:
        super().__init__()
        widths = [channels, *[hidden] * (layers - 1), bottleneck]
        steps: list[nn.Module] = []
        for before, after in zip(widths, widths[1:]):
            steps += [nn.Linear(before, after), nn.GELU()]
        self.mlp = nn.Sequential(*steps[:-1])
        self.last_layer = nn.Linear(bottleneck, prototypes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels] -> logits [N, prototypes]."""
        return self.last_layer(F.normalize(self.mlp(x), dim=-1, eps=1e-6))
