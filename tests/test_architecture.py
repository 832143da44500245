"""The law of the house (docs/architecture.md): who may import whom, and who may do what."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [p for p in sorted((ROOT / "src").rglob("*.py")) if "timm_hub" not in p.parts]
TASKS = {path.parent.name for path in SOURCES if path.name == "spec.py"}  # a new one as well
TASKS |= {"retrieval", "oneshot", "pretraining"}
BELOW_TASKS = {"visualise", "predict", "features", "backbones", "data", "engine", "metrics", "core"}
BELOW_TASKS |= {"models"}
# Each room with the rooms below it that it may import.
ALLOWED = {
    "core": set(),
    "backbones": {"core"},
    "data": {"core"},
    "metrics": {"core"},
    "models": {"core", "backbones"},
    "engine": {"core", "models"},
    "predict": {"core", "backbones", "data", "engine", "metrics"},
    "features": {"core", "backbones", "data", "engine", "metrics"},
    "visualise": {"core", "backbones", "data", "engine", "metrics", "predict", "features"},
    **dict.fromkeys(TASKS, BELOW_TASKS),
    "plugins": BELOW_TASKS | {"detection", "pretraining"},  # above the tasks; nothing imports them
}
# Commands that live in a room but stand above it, like the scripts.
COMMANDS = {"data/check.py", "data/fetch_voc.py", "demo.py", "evaluate.py"}
COMMANDS |= {"pretraining/__main__.py"}  # pseudo-labels by the models of every task
LAZY_EXPORTS = {"__init__.py"}  # of the package itself: imports its names when they are asked for


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve(path, node)
            # The package is called src in a clone and dino_stack where it is installed.
            assert node.level or not module.startswith("src"), f"{path}: absolute {module}"
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def resolve(path: Path, node: ast.ImportFrom) -> str:
    """The module that an import names, absolute."""
    if not node.level:
        return node.module or ""
    package = ["src", *path.relative_to(ROOT / "src").parts[:-1]]
    return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "src").as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down_only(path):
    if name_of(path) in COMMANDS or path.parent.name == "src":
        return
    room = name_of(path).split("/")[0]
    used = {name.split(".")[1] for name in imports(path) if name.startswith("src.")}
    # A settings file is part of every command's options: it is light and may be read by tasks.
    assert used - {room} <= ALLOWED[room], f"{path} imports {used - {room} - ALLOWED[room]}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_single_owners(path):
    text, name = path.read_text(), name_of(path)
    assert name == "backbones/hub.py" or "torch.hub.load(" not in text
    assert name == "core/cli.py" or not {"argparse"} & imports(path)
    drawing = ("cv2.imshow", "cv2.VideoWriter", "import matplotlib", "cv2.imwrite", "cv2.putText")
    owners = ("visualise/", "predict/images.py", "predict/video", "predict/display.py")
    if not name.startswith((*owners, "data/drawn/")):
        assert not [call for call in drawing if call in text]
    if path.name == "__init__.py" and name not in LAZY_EXPORTS:
        assert all(isinstance(node, ast.Expr) for node in ast.parse(text).body)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "settings.py"], ids=name_of)
def test_settings_are_light(path):
    heavy = {"torch", "numpy", "cv2", "torchvision", "timm", "matplotlib", "albumentations"}
    assert not {name.split(".")[0] for name in imports(path)} & heavy


def test_ultralytics_is_the_plugins_alone():
    """It changes torch.save, PIL.Image.open and OMP_NUM_THREADS of the process that imports it."""
    users = [
        path.relative_to(ROOT).as_posix()
        for folder in ("src", "benchmarks", "tools")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^\s*(from|import) ultralytics", path.read_text(), re.MULTILINE)
    ]
    assert all(user.startswith("src/plugins/yolo_fusion/") for user in users) and users
    importers = [
        name_of(path)
        for path in SOURCES
        if name_of(path).split("/")[0] != "plugins"
        and any(name.startswith("src.plugins") for name in imports(path))
    ]
    assert not importers


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['train_detection.py', '--help']\n"
        "import runpy\n"
        "try: runpy.run_path('train_detection.py', run_name='__main__')\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "heavy = {'torch', 'numpy', 'cv2', 'torchvision', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--model-name" in done.stdout


def module_graph(base: str) -> dict[str, set[str]]:
    """module -> the modules of ``base`` that it imports, also inside functions and for types."""
    files = {}
    for path in (ROOT / base).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in files.items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*above, *filter(None, [node.module])])
                found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        graph[name] = (found & set(files)) - {name, base}
    return graph


@pytest.mark.parametrize("base", ["src", "benchmarks"])
def test_no_import_circle(base):
    graph = module_graph(base)
    while leaves := {name for name, used in graph.items() if not used}:
        graph = {name: used - leaves for name, used in graph.items() if name not in leaves}
    assert not graph, f"circles among: {sorted(graph)}"


# Names that every task or format has, each for the same: a role, not a second meaning.
ROLES = {
    *(
        "main",
        "main_image",
        "main_video",
        "run",
        "train",
        "evaluate",
        "infer_images",
        "infer_video",
    ),
    *("load", "load_predictor", "examine", "read", "read_data", "draw_maps"),
    *("LinearHead", "DptHead", "SPEC"),
}


def test_one_meaning_a_name():
    """No public class or function of one name in two modules, but for roles."""
    homes: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name[0] != "_"
            if public and node.name not in ROLES:
                homes.setdefault(node.name, []).append(name_of(path))
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}
