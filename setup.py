"""Maps the folders of the clone to the installed package: src/ is ``dino_stack``, and the shipped
YAMLs travel inside it (pyproject.toml holds everything else)."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
CONFIGS = sorted(folder.name for folder in HERE.glob("*_configs"))
HUB = "dino_stack.backbones.timm_hub"  # a hub repository: no package, but its files travel

setup(
    packages=[
        "dino_stack",
        *(f"dino_stack.{name}" for name in find_packages(str(HERE / "src"))),
        HUB,
        f"{HUB}.dino_timm",
        *(f"dino_stack.{name}" for name in CONFIGS),
    ],
    package_dir={"dino_stack": "src", **{f"dino_stack.{name}": name for name in CONFIGS}},
    package_data={f"dino_stack.{name}": ["*.yaml"] for name in CONFIGS},
)
