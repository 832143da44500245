"""``dinostack doctor``: what this machine has, and what is missing for which command."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from .core import cli
from .core.config import CommandSettings
from .core.paths import IN_CLONE, PACKAGE, PROJECT_ROOT, weights_folder

log = logging.getLogger(__name__)

# distribution -> (module, what needs it)
OPTIONAL = {
    "faiss-cpu": ("faiss", "retrieval, near-duplicates"),
    "pyarrow": ("pyarrow", "features in .parquet files"),
    "onnxruntime": ("onnxruntime", "running exported .onnx models"),
    "openvino": ("openvino", "running exported OpenVINO models"),
    "supervision": ("supervision", "to_supervision(), --track"),
    "trackers": ("trackers", "--track of videos (requirements-tracking.txt)"),
    "ultralytics-opencv-headless": (
        "ultralytics",
        "YOLO with DINO's context (AGPL, requirements-yolo.txt)",
    ),
    "wandb": ("wandb", "--logger wandb"),
    "mlflow": ("mlflow", "--logger mlflow"),
}
_NEEDED = "torch torchvision timm transformers lightning-fabric numpy albumentations "
_NEEDED += "opencv-python-headless opencv-python av pydantic"


class DoctorOptions(CommandSettings):
    """Print versions, devices, memory, codecs, weights, and what is missing for which command."""


def main() -> None:
    """The command line."""
    cli.run(_command)


def _command() -> None:
    cli.parse(DoctorOptions, prog="python -m src doctor")
    log.info("%s", report())


def report() -> str:
    """The whole report, a line a fact."""
    sections = {
        "machine": _machine(),
        "packages": _packages(),
        "PyTorch": _torch(),
        "video and windows": _video(),
        "backbone weights": _weights(),
        "optional": _optional(),
    }
    return "\n".join(
        f"{name}\n" + "\n".join(f"  {line}" for line in lines) for name, lines in sections.items()
    )


def _machine() -> Iterator[str]:
    yield f"Python {platform.python_version()} on {platform.platform()}, {sys.executable}"
    yield f"dino-stack {_version('dino-stack') or '(not installed: a clone)'} in {PACKAGE}"
    memory = _memory()
    yield f"{os.cpu_count()} cores" + (f", {memory / 2**30:.0f} GiB memory" if memory else "")
    free = shutil.disk_usage(Path.cwd()).free
    yield f"{free / 2**30:.0f} GiB free where results go ({Path.cwd() / 'outputs'})"


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[str]:
    for name in _NEEDED.split():
        version = _version(name)
        if version or not name.startswith("opencv"):
            yield f"{name} {version or 'MISSING: pip install -r requirements.txt'}"
    if _version("opencv-python") and _version("opencv-python-headless"):
        yield "both OpenCV builds are installed: they share a folder, keep one of them"


def _torch() -> Iterator[str]:
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        yield f"cannot be imported: {error}"
        yield "torch and torchvision must come from the same index and be made for each other"
        return
    try:
        torchvision.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    except RuntimeError:
        yield "torchvision's operators do not fit this torch: install both from the same index"
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        yield f"no CUDA device ({built}); {torch.get_num_threads()} threads on the CPU, float32"
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield f"cuda:{index} {found.name}, {found.total_memory / 2**30:.0f} GiB, {bf16}"


def _video() -> Iterator[str]:
    import cv2

    gui = next((x for x in cv2.getBuildInformation().splitlines() if "GUI:" in x), "").split()[-1:]
    windows = bool(gui) and gui[0] != "NONE"
    shown = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    yield "--show: " + (
        "windows can be opened"
        if windows and (shown or not sys.platform.startswith("linux"))
        else "no display here"
        if windows
        else "OpenCV is the headless build (README: the swap for windows)"
    )
    try:
        import av

        for name in ("libx264", "h264_nvenc", "h264_cuvid"):
            try:
                av.Codec(name, "r" if name.endswith("cuvid") else "w")
                yield f"codec {name}: in PyAV {av.__version__}"
            except av.error.FFmpegError:
                yield f"codec {name}: not in PyAV {av.__version__}"
    except ImportError:
        yield "PyAV is missing: videos are written as mp4v, which browsers do not play"


def _weights() -> Iterator[str]:
    for family in ("dinov3", "dinov2"):
        folder = weights_folder(family)
        files = sorted(p.name for p in folder.glob(f"{family}_*.pth")) if folder.is_dir() else []
        yield f"{family}: {', '.join(files) or 'none'} in {folder.resolve()}"
    env = [folder / ".env" for folder in (Path.cwd(), PROJECT_ROOT) if (folder / ".env").is_file()]
    yield f".env: {env[0].resolve() if env else 'none' + (' (.env.example)' if IN_CLONE else '')}"


def _optional() -> Iterator[str]:
    for name, (module, use) in OPTIONAL.items():
        found = find_spec(module) is not None
        yield f"{name} {_version(name) or ''}".rstrip() + (
            f": {use}" if found else f" MISSING, needed for {use}: pip install {name}"
        )


if __name__ == "__main__":
    main()
