"""The only command-line parser: flags are made from Settings classes, errors are one message."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from .config import CommandSettings, choices_of, combine
from .errors import UserError
from .registry import did_you_mean
from .tuning import tune_process

C = TypeVar("C", bound=CommandSettings)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        annotation = inner[0] if len(inner) == 1 else annotation
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _length(annotation: Any) -> int | str | None:
    """How many words the flag takes: a number, '+', or None for one."""
    origin = get_origin(annotation)
    if origin is list:
        return "+"
    if origin is tuple:
        inner = get_args(annotation)
        return "+" if Ellipsis in inner else len(inner)
    if isinstance(annotation, type) and issubclass(annotation, tuple):
        return len(annotation._fields)  # type: ignore[attr-defined]
    return None


def _add_flag(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    extra: dict[str, Any] = (
        field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    )
    flags = ["--" + name.replace("_", "-"), *extra.get("flags", [])]
    help_text = field.description or ""
    annotation = _without_none(field.annotation)
    choices = choices_of(field.annotation)
    if choices:
        help_text += f" [{' | '.join(choices)}]"
    if field.default not in (None, False, ...) and not field.is_required():
        default = field.default
        if isinstance(default, (list, tuple)):
            default = " ".join(str(item) for item in default)
        help_text += f" (default: {default})"
    help_text = argparse.SUPPRESS if extra.get("hidden") else help_text.replace("%", "%%")
    # One spelling in the help, all of them accepted.
    shown = [f for f in flags if f == flags[0] or (f.startswith("-") and f in extra["flags"])]
    spellings = shown + [f for f in flags if f not in shown]
    if annotation is bool:
        action: Any = "store_true" if not field.default else argparse.BooleanOptionalAction
        group.add_argument(
            *spellings, dest=name, action=action, help=help_text, default=argparse.SUPPRESS
        )
        if not field.default:  # so that a flag wins over the YAML's TRAIN both ways
            group.add_argument(
                f"--no-{flags[0][2:]}",
                dest=name,
                action="store_false",
                help=argparse.SUPPRESS,
                default=argparse.SUPPRESS,
            )
        return
    group.add_argument(
        *spellings,
        dest=name,
        nargs="+" if extra.get("words") else _length(annotation),
        action="extend" if extra.get("repeated") else "store",
        metavar=extra.get("metavar") or name.upper(),
        help=help_text,
        default=argparse.SUPPRESS,
    )


# What help calls the command when it was not started as a script: "dinostack detection train".
called_as: str | None = None


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are UserErrors."""

    def error(self, message: str) -> Any:
        raise UserError(f"{message}\n{self.format_usage().strip().splitlines()[0]} ... (--help)")


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        return f"usage: {self._prog} [options]\n\n"


def build_parser(
    settings: type[CommandSettings], prog: str | None = None
) -> argparse.ArgumentParser:
    """An argparse parser with one flag per field, grouped by the class that declares it."""
    parser = _Parser(
        prog=called_as or prog,
        description=(settings.__doc__ or "").strip(),
        epilog="What the YAML's TRAIN mapping switches on, --no-FLAG switches off."
        if settings.dataset_class is not None
        else None,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    declared: dict[str, type] = {}
    for cls in reversed(settings.__mro__):
        for name in getattr(cls, "__annotations__", {}):
            if name in settings.model_fields:
                declared.setdefault(name, cls)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, field in settings.model_fields.items():
        if name == "dataset":
            continue
        owner = declared.get(name, settings)
        title = (owner.__doc__ or "options").strip().splitlines()[0].rstrip(".")
        title = "Of this command" if owner is settings else title
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add_flag(groups[title], name, field)
    return parser


def parse(settings: type[C], argv: Sequence[str] | None = None, prog: str | None = None) -> C:
    """Read flags (and the YAML that ``--config`` names) into a settings object.

    Precedence: flags, then the YAML's ``TRAIN:`` mapping (with --fine-tune its own
    ``FINE_TUNE:`` mapping first), then the defaults. All mistakes come in one UserError.
    """
    parser = build_parser(settings, prog)
    words = list(sys.argv[1:] if argv is None else argv)
    known, unknown = parser.parse_known_args(_with_flag_before(words, settings, parser))
    if unknown:
        spellings = list(parser._option_string_actions)
        named = ", ".join(f"{word}{_counterpart(word, spellings)}" for word in unknown)
        raise UserError(f"unknown argument: {named}; --help lists all")
    given = vars(known)
    sources = {name: f"--{name.replace('_', '-')}" for name in given}
    return combine(settings, given, sources)


# How other tools (ultralytics, torchvision, timm) call what some flag here says.
ELSEWHERE = {
    "--conf": "--threshold", "--conf-thres": "--threshold", "--source": "--input",
    "--iou": "--nms", "--iou-thres": "--nms", "--weights": "--model", "--checkpoint": "--model",
    "--data": "--config", "--img": "--imgsz", "--img-size": "--imgsz", "--project": "--out-dir",
    "--name": "--out-dir", "--output": "--out-dir", "--output-dir": "--out-dir",
    "--lr0": "--lr", "--max-dets": "--max-det", "--query": "--input", "--index": "--index-dir",
}  # fmt: skip


def _counterpart(word: str, spellings: list[str]) -> str:
    """What an unknown flag is called here, else the nearest flag, in brackets."""
    here = ELSEWHERE.get(word.partition("=")[0].replace("_", "-"))
    return f" (here: {here})" if here in spellings else did_you_mean(word, spellings)


def spoken(text: str) -> str:
    """The text with commands as they are called where the package is installed."""
    package = __name__.split(".")[0]
    return text if package == "src" else text.replace("python -m src", f"python -m {package}")


class _Formatter(logging.Formatter):
    """Log lines are for the terminal: the message alone."""

    def format(self, record: logging.LogRecord) -> str:
        return spoken(super().format(record))


def _with_flag_before(
    words: list[str], settings: type[CommandSettings], parser: argparse.ArgumentParser
) -> list[str]:
    """The words with the flag of the ``positional`` field before those that belong to no flag,
    wherever they stand: ``A B --imgsz 224``, ``--imgsz 224 A B``."""
    fields = {n: f.json_schema_extra for n, f in settings.model_fields.items()}
    name = next((n for n, e in fields.items() if isinstance(e, dict) and e.get("positional")), None)
    if name is None:
        return words
    flagged: list[str] = []
    loose: list[str] = []
    room, numbers = 0.0, False  # words that the flag before still takes, and whether of any kind
    for word in words:
        if word.startswith("-") and not _is_number(word):
            action = parser._option_string_actions.get(word)
            length = 0 if action is None else 1 if action.nargs is None else action.nargs
            room = math.inf if length == "+" else float(length)
            field = settings.model_fields.get(action.dest) if action else None
            kind = get_args(_without_none(field.annotation)) if field else ()
            numbers = room == math.inf and kind[:1] in ((int,), (float,))
        elif room and not (numbers and not _is_number(word)):
            room -= 1
        else:
            room = 0
            loose.append(word)
            continue
        flagged.append(word)
    return [*flagged, f"--{name.replace('_', '-')}", *loose] if loose else words


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def run(command: Callable[[], Any]) -> None:
    """Run a command's body: UserErrors become one message and an exit code, Ctrl-C is 130."""
    tune_process()
    # Of torchrun's processes the first alone talks; errors come from all.
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, stream=sys.stdout, force=True)
    logging.getLogger().handlers[0].setFormatter(_Formatter("%(message)s"))
    for noisy in ("matplotlib", "PIL", "fontTools", "lightning", "lightning_fabric", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A line for each attempt, twice (it has a handler of its own, and sets its level where it is
    # imported); the error at the end says it.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        result = command()
    except UserError as error:
        print(spoken(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


def dispatch(
    commands: dict[str, tuple[type[CommandSettings], Callable[[Any], Any]]],
    prog: str,
    argv: Sequence[str] | None = None,
) -> None:
    """Run ``prog COMMAND [options]``: name -> (settings class, function of the settings).

    The functions import what is heavy inside, so that ``--help`` stays quick.
    """
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    prog = called_as or prog
    if name in ("-h", "--help"):
        print(f"usage: {prog} COMMAND [options]\n\ncommands (each has its own --help):")
        for command, (settings, _) in commands.items():
            print(f"  {command:<14}{(settings.__doc__ or '').strip().splitlines()[0]}")
        sys.exit(0)

    def body() -> Any:
        if name not in commands:
            hint = did_you_mean(name, commands)
            raise UserError(f"unknown command '{name}'{hint}; choose from: {', '.join(commands)}")
        global called_as
        called_as = called_as and f"{called_as} {name}"
        settings, function = commands[name]
        return function(parse(settings, rest, f"{prog} {name}"))

    run(body)
