"""Configuration: YAML and flags, all mistakes at once, with the place and the remedy."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field

from src.core import cli
from src.core.config import CommandSettings, Settings, Sides, load_yaml, option
from src.core.errors import UserError
from tests.conftest import PROJECT


class Data(Settings):
    """A data set."""

    CLASSES: list[str]
    ROOT: Path = Field(Path())


class Train(CommandSettings):
    """Train something."""

    dataset_class: ClassVar[type[Settings] | None] = Data
    config: Path = option(Path("x.yaml"), help="YAML")
    lr: float = option(1e-4, gt=0, flags=["-lr"], help="rate")
    imgsz: list[int] = option([640, 640], help="size")
    weights: str = option("none", flags=["--weight"], help="weights")
    head: Literal["ssd", "fcos"] = option("ssd", help="head")
    fine_tune: bool = option(False, help="all of it")


@pytest.fixture
def yaml_file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "data.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_flags_win_over_the_yaml_and_that_over_defaults(yaml_file):
    config = yaml_file("CLASSES: [a]\nTRAIN: {lr: 1e-3, head: fcos}\n")
    settings = cli.parse(Train, ["--config", config, "--head", "ssd", "--weight", "w.pth"])
    assert (settings.lr, settings.head, settings.weights) == (1e-3, "ssd", "w.pth")
    assert settings.imgsz == [640, 640]
    assert settings.dataset.CLASSES == ["a"]


def test_a_switch_of_the_yaml_can_be_turned_off(yaml_file):
    config = yaml_file("CLASSES: [a]\nTRAIN: {fine_tune: true}\n")
    assert cli.parse(Train, ["--config", config]).fine_tune
    assert not cli.parse(Train, ["--config", config, "--no-fine-tune"]).fine_tune


def test_all_mistakes_come_at_once_with_their_places(yaml_file):
    config = yaml_file("CLASSE: [a]\nTRAIN: {lrr: 3}\n")
    with pytest.raises(UserError) as error:
        cli.parse(Train, ["--config", config, "-lr", "-1", "--head", "sdd"])
    message = str(error.value)
    assert "CLASSE: unknown key (did you mean 'CLASSES'?)" in message
    assert "CLASSES: is required" in message
    assert "lrr: unknown key (did you mean 'lr'?)" in message
    assert "--lr: lr: Input should be greater than 0" in message
    assert "'ssd' or 'fcos'" in message


def test_unknown_flag_suggests(yaml_file):
    with pytest.raises(UserError, match=r"--fine-tun \(did you mean '--fine-tune'\?\)"):
        cli.parse(Train, ["--config", yaml_file("CLASSES: [a]"), "--fine-tun"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("[" * 10_000, "is not valid YAML"),
        ("- a", "must hold a mapping"),
        ("", "CLASSES: is required"),
    ],
)
def test_bad_files_are_one_message(yaml_file, text, message):
    with pytest.raises(UserError, match=message):
        cli.parse(Train, ["--config", yaml_file(text)])


class Infer(CommandSettings):
    """Infer something."""

    model: Path = option(..., help="checkpoint")
    imgsz: Sides | None = option(None, help="size")


def test_an_optional_size_is_checked_like_any_other():
    given = ["--model", "m.pth", "--imgsz"]
    assert cli.parse(Infer, given[:2]).imgsz is None
    assert cli.parse(Infer, [*given, "64"]).imgsz == [64, 64]
    assert cli.parse(Infer, [*given, "64", "48"]).imgsz == [64, 48]
    assert Infer(model="m.pth", imgsz=64).imgsz == [64, 64]  # from Python
    for wrong in (["0"], ["64", "-5"], ["64", "48", "32"], ["99999"]):
        with pytest.raises(UserError, match="width and height in pixels"):
            cli.parse(Infer, [*given, *wrong])


def test_a_flag_that_is_required_is_named_as_it_is_typed():
    with pytest.raises(UserError, match="--model is required"):
        cli.parse(Infer, [])


def test_missing_file_names_its_neighbours(yaml_file):
    config = yaml_file("CLASSES: [a]")
    with pytest.raises(UserError, match=r"did you mean 'data.yaml'"):
        load_yaml(config.replace("data.yaml", "date.yaml"))


def test_run_prints_one_message_and_exits(capsys):
    def fail() -> None:
        raise UserError("no cat\nin the bag")

    with pytest.raises(SystemExit) as exit_:
        cli.run(fail)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: no cat\nin the bag\n"


def test_of_torchruns_processes_the_first_alone_talks(capsys, monkeypatch):
    for rank, said in (("1", ""), ("0", "3 images\n")):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit):
            cli.run(lambda: logging.getLogger("src.any").info("3 images"))
        assert capsys.readouterr().out == said


class Compare(CommandSettings):
    """Compare two files."""

    files: tuple[Path, Path] = option(..., positional=True, help="the two")
    imgsz: Sides = option([224], help="size")
    name: list[str] = option([], help="names")
    unit: bool = option(False, help="switch")


@pytest.mark.parametrize(
    "line",
    [
        "a 2 --imgsz 64 --unit",
        "--imgsz 64 a 2 --unit",
        "--imgsz 64 --unit a 2",
        "a --imgsz 64 --unit 2",
        "--unit --files a 2 --imgsz 64",
    ],
)
def test_words_without_a_flag_may_stand_anywhere(line):
    found = cli.parse(Compare, line.split())
    assert (found.files, found.imgsz, found.unit) == ((Path("a"), Path("2")), [64, 64], True)


def test_words_without_a_flag_are_no_others():
    with pytest.raises(UserError, match="expected 2 arguments"):
        cli.parse(Compare, ["a", "--imgsz", "64"])
    with pytest.raises(UserError, match="expected 2 arguments|unknown argument: c"):
        cli.parse(Compare, ["a", "b", "--unit", "c"])
    with pytest.raises(UserError, match="--files is required"):
        cli.parse(Compare, ["--name", "a", "b"])


def test_attempts_to_reach_the_hub_are_not_told_one_by_one():
    code = (
        "import logging\nfrom src.core import cli\n"
        "def command():\n"
        "    import huggingface_hub.utils.logging\n"
        "    logging.getLogger('huggingface_hub.utils._http').warning('Retrying in 8s')\n"
        "cli.run(command)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_VERBOSITY"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "Retrying" not in done.stdout + done.stderr
