"""Meta's checkpoints through the bundled hub, and through a clone, give Meta's numbers."""

from __future__ import annotations

import pytest
import torch

from src.backbones.catalog import CATALOG
from src.backbones.hub import load_hub_model
from src.core.paths import hub_repository
from tests.backbones.official import MODELS, largest_difference, official_state


@pytest.mark.parametrize("name", MODELS)
def test_bundled_hub_equals_the_official_code(name, shared, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(official_state(shared / "parity", name), file)
    model = load_hub_model(CATALOG[name], str(file), "bundled").eval()
    assert largest_difference(model, shared / "parity", name) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_a_real_clone_gives_the_same_numbers(name, shared, tmp_path):
    spec = CATALOG[name]
    if hub_repository(spec.family) is None:
        pytest.skip(f"no clone of facebookresearch/{spec.family}: set its _REPO variable in .env")
    file = tmp_path / "weights.pth"
    torch.save(official_state(shared / "parity", name), file)
    model = load_hub_model(spec, str(file), "local").eval()
    assert largest_difference(model, shared / "parity", name) < 1e-5


@pytest.mark.parametrize("name", [name for name, spec in CATALOG.items() if spec.file])
def test_every_architecture_has_the_shapes_of_the_clone(name):
    """All sizes, 7B too: built on the meta device, no weight is allocated."""
    spec = CATALOG[name]
    if hub_repository(spec.family) is None:
        pytest.skip(f"no clone of facebookresearch/{spec.family}: set its _REPO variable in .env")
    with torch.device("meta"):
        official = load_hub_model(spec, "none", "local")
        bundled = load_hub_model(spec, "none", "bundled")
    converted = bundled.convert_official(official.state_dict())
    own = bundled.state_dict()
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in own.items()}
