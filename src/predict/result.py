"""What prediction from Python answers for one image, the same object whatever it came from."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..core.errors import UserError
from ..core.files import write_json
from ..data.common.images import encode_image, write_image

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class Result(ABC):
    """The base of each task's result: the image (RGB uint8 [H, W, 3]) and the class names.

    A notebook shows it as the annotated picture. layer: when it is drawn where several tasks'
    results share a picture: areas 0, outlines 1, words 2, what stands beside the picture 3.
    """

    layer: ClassVar[int] = 1

    image: np.ndarray
    names: list[str]

    @abstractmethod
    def draw(self) -> np.ndarray:
        """The annotated copy, RGB uint8 [H, W, 3]."""

    def draw_over(self, picture: np.ndarray) -> np.ndarray:
        """``draw`` on a picture of the image that other results were drawn on."""
        return replace(self, image=picture).draw()

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What ``save("x.npz")`` writes; none: no arrays."""
        return {}

    def plot(self) -> Image:
        """The annotated picture as a PIL image: ``result.plot().save("out.jpg")``."""
        from PIL import Image

        return Image.fromarray(self.draw())

    def save(self, path: str | Path) -> Path:
        """Write the annotated picture (.jpg, .png), ``to_dict`` (.json) or the arrays (.npz).

        Raises UserError for another suffix, or a folder that cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            write_json(path, self.to_dict())
        elif suffix == ".npz" and self.arrays():
            np.savez_compressed(path, **self.arrays())  # type: ignore[arg-type]
        elif suffix in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"):
            write_image(path, self.draw())
        else:
            raise UserError(f"cannot save a result as {path}: take .jpg, .png, .json or .npz")
        return path

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections`` (pip install supervision). UserError where the
        task has none, or supervision is not installed."""
        raise UserError(f"{type(self).__name__} has no counterpart in supervision")

    def _repr_png_(self) -> bytes:
        return encode_image(self.draw(), ".png")

    def __str__(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False)


def require_supervision() -> Any:
    """The library, or a UserError that says how to get it."""
    try:
        import supervision
    except ImportError:
        raise UserError("to_supervision() needs: pip install supervision") from None
    return supervision
