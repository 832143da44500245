"""What models of this hub have in common: Meta's names of weights, and ``forward``."""

from __future__ import annotations

from torch import Tensor, nn


class HubModel(nn.Module):
    """Answers as Meta's models; subclasses fill ``forward_features``."""

    def forward_features(self, x: Tensor, masks: Tensor | None = None) -> dict[str, Tensor | None]:
        """Normalised class token, patch tokens and more, by Meta's names."""
        raise NotImplementedError

    def convert_official(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict in Meta's names -> this model's own names (see loading.convert)."""
        from .loading import convert

        return convert(self, state)

    def official_state(self) -> dict[str, Tensor]:
        """All weights in Meta's names and layout (see official.official_state)."""
        from .official import official_state

        return official_state(self)

    def load_weights(self, state: dict[str, Tensor]) -> None:
        """Load Meta's names or this model's own, strictly; ValueError names what does not fit."""
        from .loading import load_weights

        load_weights(self, state)

    def forward(self, x: Tensor, is_training: bool = False) -> Tensor | dict[str, Tensor | None]:
        """The normalised class token [B, C] (ConvNeXt: the mean); the whole dictionary when
        ``is_training``."""
        features = self.forward_features(x)
        return features if is_training else features["x_norm_clstoken"]
