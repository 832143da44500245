"""Ultralytics, imported so that it installs, fetches and reports nothing.

What it does at its import to the process it is in (torch.save and PIL.Image.open replaced, one
OMP thread, no threads of cv2) is why nothing outside this plugin imports it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ...core.errors import UserError
from ...core.paths import output_folder


def prepare() -> None:
    """To be called before anything imports ultralytics. UserError where it is not installed.

    Auto-install would fetch a package named after whatever module a checkpoint lacks; offline
    means no look-up of hosts, no events, no weights or data sets from the network. The
    environment is that of the processes it starts as well.
    """
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ["YOLO_OFFLINE"] = "1"
    os.environ.setdefault("YOLO_CONFIG_DIR", str(output_folder(".ultralytics").resolve()))
    try:
        from ultralytics import settings
        from ultralytics.utils import USER_CONFIG_DIR
    except ImportError as error:
        raise UserError(
            f"this command needs ultralytics ({error}): pip install -r requirements-yolo.txt "
            "(AGPL-3.0, see docs/yolo_fusion.md)"
        ) from None
    if settings.get("sync"):
        settings.update(sync=False)
    font = Path(USER_CONFIG_DIR) / "Arial.ttf"
    if not font.exists():  # it would be fetched; of plots' letters
        from matplotlib import get_data_path

        shutil.copyfile(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", font)
        shutil.copyfile(font, font.with_name("Arial.Unicode.ttf"))
