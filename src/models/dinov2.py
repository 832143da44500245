"""Meta's published DINOv2 heads (https://github.com/facebookresearch/dinov2, Apache-2.0): linear
classifiers of ImageNet-1k, linear and multi-scale segmentation of ADE20K and VOC 2012, depth of NYU
and KITTI. Each is proved on Meta's code in tests/models/test_dinov2.py.

Addresses: dinov2/hub/classifiers.py, depthers.py and notebooks/semantic_segmentation.ipynb.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..backbones.catalog import CATALOG
from .catalogue import File, PublishedModel, content, shipped_dataset
from .renaming import below, rename, under

if TYPE_CHECKING:
    from torch import Tensor

    from .renaming import State

_URL = "https://dl.fbaipublicfiles.com/dinov2"
_PAGE = "https://github.com/facebookresearch/dinov2"
_README = f"{_PAGE}#pretrained-heads---image-classification"
_CARD = f"{_PAGE}/blob/main/MODEL_CARD.md"
_PAPER = "https://arxiv.org/abs/2304.07193"

_DPT = [
    (r"reassemble_blocks\.readout_projects\.(\d)\.0\.(weight|bias)", r"readout.\1.\2"),
    (r"reassemble_blocks\.projects\.(\d)\.conv\.(weight|bias)", r"project.\1.\2"),
    (r"reassemble_blocks\.resize_layers\.(\d)\.(weight|bias)", r"resize.\1.\2"),
    (r"convs\.(\d)\.conv\.weight", r"smooth.\1.weight"),
    (r"fusion_blocks\.(\d)\.project\.conv\.(weight|bias)", r"fuse.\1.output.\2"),
    (r"fusion_blocks\.(\d)\.res_conv_unit1\.conv1\.conv\.weight", r"fuse.\1.skip.first.weight"),
    (r"fusion_blocks\.(\d)\.res_conv_unit1\.conv2\.conv\.weight", r"fuse.\1.skip.second.weight"),
    (r"fusion_blocks\.(\d)\.res_conv_unit2\.conv1\.conv\.weight", r"fuse.\1.refine.first.weight"),
    (r"fusion_blocks\.(\d)\.res_conv_unit2\.conv2\.conv\.weight", r"fuse.\1.refine.second.weight"),
    (r"project\.conv\.(weight|bias)", r"last.\1"),
    (r"conv_depth\.head\.0\.(weight|bias)", r"metres.0.\1"),
    (r"conv_depth\.head\.2\.(weight|bias)", r"metres.1.\1"),
    (r"conv_depth\.head\.4\.(weight|bias)", r"metres.2.\1"),
]
_LINEAR_DEPTH = [(r"conv_depth\.(weight|bias)", r"score.\1")]
_DECODER = "decode_head."  # mmcv's checkpoints name the whole model; the backbone has no weights


def classifier_weights(head: State) -> dict[str, Tensor]:
    """A linear head's names -> ours (``linear4``: the class tokens of four blocks, shallow to deep,
    then the mean of the patches, as ``--head layers``)."""
    return rename(head, [(r"(weight|bias)", r"head.classify.\1")])


def segmentation_weights(head: State, names: Sequence[str], width: int) -> dict[str, Tensor]:
    """Batch norm and linear layer on the concatenation of maps of ``width`` channels -> one of each
    for each map (``LinearProbe``)."""
    own = below(head, _DECODER)
    weights: dict[str, Tensor] = {}
    for index, name in enumerate(names):
        part = slice(index * width, (index + 1) * width)
        for kind in ("weight", "bias", "running_mean", "running_var"):
            weights[f"norms.{name}.{kind}"] = own[f"bn.{kind}"][part]
        weights[f"norms.{name}.num_batches_tracked"] = own["bn.num_batches_tracked"]
        weights[f"classify.{name}.weight"] = own["conv_seg.weight"][:, part]
    weights[f"classify.{names[-1]}.bias"] = own["conv_seg.bias"]
    return under(weights, "head.")


def depth_weights(head: State, kind: str) -> dict[str, Tensor]:
    """The names of Meta's BNHead (kind ``dinov2-linear``) or DPTHead -> ours."""
    if kind == "dinov2-linear":
        return under(rename(below(head, _DECODER), _LINEAR_DEPTH), "head.")
    ours = rename(below(head, _DECODER), _DPT)
    for name, value in ours.items():
        if name.startswith("readout.") and value.ndim == 2:  # a linear layer, for us on each cell
            ours[name] = value[:, :, None, None]
    return under(ours, "head.")


def dinov2_content(model: PublishedModel, states: Sequence[State]) -> dict[str, Any]:
    """The content of a checkpoint (``catalogue.content``)."""
    head, backbone = states[0], under(states[1], "backbone.hub_model.")
    if model.task == "classification":
        dataset, weights = imagenet(), classifier_weights(head) | backbone
        names, size = dataset["CLASS_NAMES"], (224, 224)
        return content(model, weights, names, size, "crop", dataset, multi_label=False)
    spec = CATALOG[model.backbone]
    if model.task == "segmentation":
        dataset = shipped_dataset(_DATA[_data_of(model)])
        taps = spec.last_taps if model.settings["feature_extractor"] == "last4" else spec.taps[-1:]
        names = [f"layer{tap + 1}" for tap in taps]
        weights = segmentation_weights(head, names, spec.dims[0])
        side = 640 if len(taps) == 4 else 512
        classes = dataset["ALL_CLASSES"]
        size, resize = (side, side), "short"
    else:
        dataset = shipped_dataset(_DATA[_data_of(model)]) | _RANGES[_data_of(model)]
        weights = depth_weights(head, model.head)
        size, resize, classes = _SIZES[_data_of(model)], "fit", []
    return content(model, weights | backbone, classes, size, resize, dataset, padding="centre")


def imagenet() -> dict[str, Any]:
    """ImageNet-1k as classification_configs/imagenet.yaml, with its classes by index: the first of
    their synonyms, as timm lists them (two pairs of one name have that of their synset behind it),
    and their folders, the synsets."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    folders = [info.index_to_label_name(index) for index in range(info.num_classes())]
    first = [info.label_name_to_description(name).split(",")[0] for name in folders]
    names = [
        name if first.count(name) == 1 else f"{name} ({folder})"
        for name, folder in zip(first, folders)
    ]
    dataset = shipped_dataset("classification_configs/imagenet.yaml")
    return {**dataset, "CLASS_NAMES": names, "CLASS_FOLDERS": folders}


def _data_of(model: PublishedModel) -> str:
    return model.name.split("_")[-2]


_DATA = {
    "ade20k": "segmentation_configs/ade20k.yaml",
    "voc2012": "segmentation_configs/voc.yaml",
    "nyu": "depth_configs/nyu.yaml",
    "kitti": "depth_configs/kitti.yaml",
}
# Of the published configurations (dinov2_vitl14_nyu_dpt_config.py, dinov2_vits14_kitti_linear_
# config.py); hub/depthers.py gives the linear heads KITTI's range on NYU, too.
_RANGES = {
    "nyu": {"MIN_DEPTH": 0.001, "MAX_DEPTH": 10.0},
    "kitti": {"MIN_DEPTH": 0.001, "MAX_DEPTH": 80.0},
}
_SIZES = {"nyu": (640, 480), "kitti": (1216, 352)}
_SEGMENTATION: dict[str, Any] = {"head_channels": 256}
_DEPTH: dict[str, Any] = {**_SEGMENTATION, "bins": 256, "bins_norm": "linear"}

# By backbone (s, b, l, g), what the sources say; None: not in them.
_TOP1 = {"": (81.1, 84.5, 86.3, 86.5), "_reg": (80.8, 84.4, 86.5, 87.0)}  # 1 layer; README
_FIGURES: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "ade20k_linear": ("ADE20K mIoU", _PAPER, (44.3, 47.3, 47.7, 49.0)),
    "ade20k_ms": ("ADE20K mIoU", _CARD, (47.2, 51.3, 53.1, 53.0)),
    "nyu_linear": ("NYU RMSE (m)", _PAPER, (0.449, 0.399, 0.384, 0.344)),
    "nyu_linear4": ("NYU RMSE (m)", _CARD, (0.417, 0.362, 0.333, 0.298)),
}


def _files(backbone: str, head: str, megabytes: float) -> tuple[File, ...]:
    """The head's file and its backbone's, which is in the weights folder for all."""
    spec = CATALOG[backbone]
    folder = backbone.removesuffix("_reg")
    return (
        File(f"hub/{head}", f"{_URL}/{folder}/{head}", megabytes, "dinov2"),
        File(
            str(spec.file),
            f"{_URL}/{folder}/{spec.file}",
            4 * spec.parameters,
            "dinov2",
            backbone=True,
        ),
    )


def _classifiers(letter: str, place: int, registers: str) -> list[PublishedModel]:
    """The heads on one block, and on four."""
    backbone = f"dinov2_vit{letter}14{registers}"
    width = CATALOG[backbone].dims[0]
    rows = []
    for layers in ("", "4"):
        head = f"dinov2_vit{letter}14{registers and '_reg4'}_linear{layers}_head.pth"
        megabytes = 4e-3 * width * (5 if layers else 2)
        figure = "-" if layers else f"ImageNet-1k top-1 {_TOP1[registers][place]} %"
        rows.append(
            PublishedModel(
                f"{backbone}_imagenet{layers}",
                "classification",
                backbone,
                "layers" if layers else "cls+patches",
                _files(backbone, head, megabytes),
                "Apache-2.0",
                _PAGE,
                dinov2_content,
                figure,
                "-" if layers else _README,
                {"head_layers": 4, "feature_extractor": "last"},
            )
        )
    return rows


def _dense(letter: str, place: int, kind: str) -> PublishedModel:
    """A head of segmentation or depth, e.g. ``nyu_dpt``."""
    backbone = f"dinov2_vit{letter}14"
    width = CATALOG[backbone].dims[0]
    data, _, head = kind.partition("_")
    depth = data in _RANGES
    several = head in ("ms", "linear4", "dpt")
    extractor = {"ms": "last4", "linear4": "multi", "dpt": "multi"}.get(head, "last")
    outputs = 2 * 256 if depth else {"ade20k": 150, "voc2012": 21}[data]
    megabytes = 4e-6 * outputs * width * (4 if several else 1)
    if head == "dpt":
        megabytes = _DPT_MEGABYTES[place]
    ours = "linear"
    if depth:
        ours = "dinov2-dpt" if head == "dpt" else "dinov2-linear"
    what, source, values = _FIGURES.get(kind, ("-", "-", ()))
    settings = _DEPTH if depth else _SEGMENTATION
    return PublishedModel(
        f"{backbone}_{kind}",
        "depth" if depth else "segmentation",
        backbone,
        ours,
        _files(backbone, f"{backbone}_{kind}_head.pth", megabytes),
        "Apache-2.0",
        _PAGE,
        dinov2_content,
        f"{what} {values[place]}" if values else what,
        source,
        {**settings, "feature_extractor": extractor},
    )


# With the optimizer's state, as that of ViT-S is (160 MiB in notebooks/depth_estimation.ipynb).
_DPT_MEGABYTES = (168, 290, 410, 742)

_KINDS = ["ade20k_linear", "ade20k_ms", "voc2012_linear", "voc2012_ms"]
_KINDS += [f"{data}_{head}" for data in ("nyu", "kitti") for head in ("linear", "linear4", "dpt")]
ROWS = [
    *(
        row
        for registers in ("", "_reg")
        for place, letter in enumerate("sblg")
        for row in _classifiers(letter, place, registers)
    ),
    *(_dense(letter, place, kind) for kind in _KINDS for place, letter in enumerate("sblg")),
]
