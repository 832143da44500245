"""The package from Python: ``dino_stack.backbone``, ``dino_stack.load``, ``dino_stack.train``.

Images are RGB everywhere: a path, a glob or a folder (read by the project), a PIL image, an array
uint8 [H, W, 3] (what ``cv2.imread`` gives is BGR: hand over the path instead, or turn the last
axis), or a tensor uint8 [3, H, W].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .backbones.base import Backbone
from .backbones.build import build_backbone
from .core.config import combine, image_size, validate
from .core.errors import UserError
from .core.structures import ResizeMode, Size
from .core.task_spec import Loaded
from .data.common.images import list_images, read_bands, resize, shown_bands
from .engine.precision import choose_device
from .predict.restore import read_model
from .tasks import tasks

if TYPE_CHECKING:
    from PIL.Image import Image

    from .engine.history import History
    from .predict.result import Result

Picture: TypeAlias = "str | Path | np.ndarray | Tensor | Image"


class Features(NamedTuple):
    """Features of N images: cls [N, C], the class tokens (ConvNeXt: the mean over the map), and
    patches [N, C, h, w], the last map; float32 on the backbone's device."""

    cls: Tensor
    patches: Tensor


class FrozenBackbone:
    """A frozen DINO backbone on its device. ``module`` is the ``nn.Module`` with its own
    contract: normalised images in, named feature maps out (docs/architecture.md)."""

    def __init__(self, module: Backbone, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.module = module.eval().to(self.device)

    def features(
        self,
        images: Picture | Sequence[Picture],
        imgsz: int | Sequence[int] = 224,
        mode: ResizeMode = "stretch",
        batch: int = 16,
    ) -> Features:
        """Class tokens and patch maps of images, resized to ``imgsz`` (one number, or width and
        height). mode "fit" keeps the aspect ratio, where all images come out at one size.

        Raises UserError for an image that cannot be read, and for sizes that differ under "fit".
        """
        size = image_size([imgsz] if isinstance(imgsz, int) else list(imgsz))
        paths, _ = _listed(images)
        parts = [self._batch(paths[i : i + batch], size, mode) for i in range(0, len(paths), batch)]
        if len({part.patches.shape[1:] for part in parts}) > 1:
            raise UserError(_DIFFER)
        return Features(*(torch.cat(values) for values in zip(*parts)))

    @torch.inference_mode()
    def _batch(self, images: Sequence[Picture], size: Size, mode: ResizeMode) -> Features:
        arrays = [resize(as_array(image), size, mode)[0] for image in images]
        if len({array.shape for array in arrays}) > 1:
            raise UserError(_DIFFER)
        pixels = torch.from_numpy(np.stack(arrays)).to(self.device).permute(0, 3, 1, 2)
        ((patches, token),) = self.module.tokens(self.module.normalise(pixels))
        return Features(token.float(), patches.float())


_DIFFER = "the images come out at different sizes: give mode='stretch', or one image at a time"


class Model:
    """A trained model of any task: ``predict`` answers the task's Result for each image.

    task, names (by class index), checkpoint (its path); predictor, and result(image, answer): the
    Result of an array and what the predictor says of it.
    """

    def __init__(self, checkpoint: Path, task: str, loaded: Loaded) -> None:
        self.checkpoint, self.task = checkpoint, task
        self.predictor, self.names, self.result = loaded

    def predict(self, images: Picture | Sequence[Picture]) -> Any:
        """A Result for one image; a list of them for several, a folder or a glob.

        The Result has the task's fields, and ``plot()``, ``save(path)``, ``to_dict()`` and
        ``to_supervision()``. Raises UserError for an image that cannot be read.
        """
        listed, single = _listed(images)
        results: list[Result] = []
        for start in range(0, len(listed), self.predictor.batch):
            part = listed[start : start + self.predictor.batch]
            arrays = [as_array(one, self.predictor.channels) for one in part]
            answers = self.predictor.predict(arrays)
            pairs = zip(map(shown_bands, arrays), answers)
            results += [self.result(picture, answer) for picture, answer in pairs]
        return results[0] if single else results


def backbone(name: str, weights: str | Path = "pretrained", **options: Any) -> FrozenBackbone:
    """A frozen backbone of the catalogue, e.g. ``backbone("dinov3_vits16", "weights/x.pth")``.

    weights: "pretrained" (from the network), "none" (random), a file name in the weights folder
    or a path. options: device ("auto"), hub, repo_dir. Raises UserError.
    """
    device = options.pop("device", "auto")
    module = build_backbone(name, weights=weights, feature_extractor="last", **options)
    return FrozenBackbone(module, device)


def load(checkpoint: str | Path, **options: Any) -> Model:
    """A trained model from its checkpoint, the folder of its run, or a file that ``src.export``
    wrote, whatever its task.

    options: those of the task's inference command, e.g. device="cuda", batch=16, imgsz=[640, 480],
    threshold=0.4. Raises UserError.
    """
    path = Path(checkpoint)
    task = read_model(path, weights=False)["task"]
    spec = tasks()[task]
    given = {"input": "-", "out_dir": Path(), **options, "model": path}
    settings = validate(spec.predict_options, given, f"load({str(path)!r})")
    return Model(path, task, spec.predictor(settings))


def train(
    task: str,
    /,
    config: str | Path | None = None,
    *,
    callback: Callable[[History], None] | None = None,
    **options: Any,
) -> History:
    """Train as ``train_*.py`` does: ``train("detection", config="my.yaml", epochs=20)``.

    options: the flags of the command with underscores. callback(history): called after every
    epoch. Returns the History: ``rows``, a dict of figures an epoch. Raises UserError.
    """
    spec = tasks()[task]
    settings = combine(spec.train_options, options | ({"config": config} if config else {}))
    return spec.train(settings, [callback] if callback else [])


def _listed(images: Picture | Sequence[Picture]) -> tuple[list[Any], bool]:
    """The images one by one, and whether a single one was meant."""
    if isinstance(images, (str, Path)):
        found = list_images(images)
        return list(found), Path(images).is_file()
    if isinstance(images, (list, tuple)):
        return list(images), False
    return [images], True


def as_array(image: Any, channels: int = 3) -> np.ndarray:
    """Any picture as RGB uint8 [H, W, 3]; of other ``channels`` a path, or float32 [H, W, C] as it
    is. UserError for what is none."""
    if isinstance(image, (str, Path)):
        return read_bands(image, channels)
    if channels != 3:
        ours = isinstance(image, np.ndarray) and image.dtype == np.float32 and image.ndim == 3
        if not ours or image.shape[2] != channels:
            found = _shown(image) if hasattr(image, "dtype") else f"a {type(image).__name__}"
            raise UserError(f"an array must be float32 [H, W, {channels}], not {found}")
        return image
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            raise UserError(f"a tensor must be uint8 [3, H, W], not {_shown(image)}")
        image = image.permute(1, 2, 0).cpu().numpy()
    elif not isinstance(image, np.ndarray) and hasattr(image, "convert"):
        image = np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise UserError(f"a {type(image).__name__} is no image: give a path, an array or a tensor")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"an array must be RGB uint8 [H, W, 3], not {_shown(image)}")
    return np.ascontiguousarray(image)


def _shown(values: Any) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
