"""A folder of small drawn textures, three classes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from src.data.common.images import write_image


@pytest.fixture(scope="session")
def textures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(0)
    for side, name in ((6, "coarse"), (12, "middle"), (24, "fine")):
        for index in range(8):
            noise = cv2.resize(rng.normal(size=(side, side, 3)), (48, 48))
            image = (127 + 60 * noise).clip(0, 255).astype(np.uint8)
            write_image(folder / name / f"{index}.png", image)
    return folder
