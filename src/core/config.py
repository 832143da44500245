"""Typed configuration: YAML and flags into pydantic models, with all errors at once.

A field is a type, a default and one sentence; the sentence is also its ``--help``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from .errors import UserError
from .paths import config_file
from .registry import did_you_mean
from .structures import Size


class Settings(BaseModel):
    """Base of every configuration: unknown keys are refused, defaults are validated too."""

    model_config = ConfigDict(
        extra="forbid", validate_default=True, populate_by_name=True, protected_namespaces=()
    )

    @classmethod
    def from_yaml(cls, content: dict[str, Any], path: Path) -> dict[str, Any]:
        """The keys of this class, of a YAML file that may have another tool's."""
        return content


class CommandSettings(Settings):
    """Settings of a command. ``dataset_class`` set: ``--config`` names a YAML that is read into
    the field ``dataset``, and whose ``TRAIN:`` mapping gives defaults for the flags (and
    in it ``FINE_TUNE:`` others, for --fine-tune and --tune all or last N)."""

    dataset_class: ClassVar[type[Settings] | None] = None
    dataset: Any = None

    @classmethod
    def dataset_kind(cls, values: Mapping[str, Any]) -> type[Settings] | None:
        """``dataset_class``, or another that the options given and the YAML's ask for."""
        return cls.dataset_class

    @classmethod
    def default_config(cls, given: Mapping[str, Any]) -> Path | None:
        """The YAML where the user names none; given: the options that the user did name."""
        return cls.model_fields["config"].default

    @classmethod
    def earlier(cls, given: Mapping[str, Any]) -> Path | None:
        """The file with the options of a run that the options given go on with, if any."""
        return None


log = logging.getLogger(__name__)
S = TypeVar("S", bound=Settings)
C = TypeVar("C", bound=CommandSettings)
LONGEST_SIDE = 16_384  # pixels: a square of it is 0.8 GB a picture, and more a mistake


def image_size(value: list[int]) -> Size:
    """``--imgsz`` W H or one number for both -> Size; ValueError when it is neither."""
    if len(value) not in (1, 2) or min(value) < 16 or max(value) > LONGEST_SIDE:
        raise ValueError(
            f"give width and height in pixels, each from 16 to {LONGEST_SIDE}, e.g. 640 480"
        )
    return Size(value[0], value[-1])


# The field type of --imgsz: one number or two in, [width, height] out.
Sides = Annotated[
    list[int],
    BeforeValidator(lambda value: [value] if isinstance(value, int) else value),
    AfterValidator(lambda value: list(image_size(value))),
]

# The field type of --input, of whatever takes several images: one word or more.
Sources = Annotated[
    list[str],
    BeforeValidator(lambda value: [str(value)] if isinstance(value, (str, Path)) else value),
]

# The field type of --precision, of every command; training's "bf16-mixed" is the same as "bf16".
Precision = Annotated[
    Literal["auto", "32", "bf16", "16"],
    BeforeValidator(lambda value: str(value).removesuffix("-mixed")),
]
PRECISION_HELP = (
    "arithmetic; auto = bf16 on a CUDA device that has it, else 32; 16 overflows in DINOv3"
)


def option(
    default: Any = ...,
    *,
    help: str,  # noqa: A002 - the word of argparse
    flags: Iterable[str] = (),
    metavar: str | None = None,
    hidden: bool = False,
    positional: bool = False,
    repeated: bool = False,
    words: bool = False,
    **constraints: Any,
) -> Any:
    """A settings field with its help sentence and further flag spellings (``-b``, ``--weight``).

    ``hidden`` keeps it out of ``--help``; ``positional``: its words need no flag before them, and
    may stand before the flags or after; ``repeated``: a list's flag may be given for each item;
    ``words``: a text of one word or several; constraints (ge, le, gt, ...) go to pydantic.
    """
    extra: dict[str, Any] = {"flags": list(flags), "metavar": metavar, "hidden": hidden}
    extra |= {"positional": positional, "repeated": repeated, "words": words}
    return Field(default, description=help, json_schema_extra=extra, **constraints)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping; a missing, unreadable or ill-formed file is a UserError."""
    path = config_file(Path(path))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, siblings)
        listed = f"; {path.parent}/ has: {', '.join(sorted(siblings))}" if siblings else ""
        raise UserError(f"no such configuration file: {path}{hint}{listed}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the configuration file {path}: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(
            f"{path} must hold a mapping (KEY: value lines), not a {type(content).__name__}"
        )
    return {str(key): value for key, value in content.items()}


def describe_error(error: ErrorDetails, model: type[BaseModel]) -> str:
    """One line for one pydantic error: dotted path, what is wrong, what was given."""
    dotted = ".".join(str(part) for part in error["loc"]) or "(all)"
    if error["type"] == "extra_forbidden":
        names = [field.alias or name for name, field in model.model_fields.items()]
        return f"{dotted}: unknown key{did_you_mean(str(error['loc'][-1]), names)}"
    if error["type"] == "missing":
        return f"{dotted}: is required"
    message = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    if isinstance(given, (str, int, float, bool, list, tuple)) and len(repr(given)) < 80:
        message += f" (got {given!r})"
    return f"{dotted}: {message}"


def validate(
    model: type[S], values: Mapping[str, Any], where: str, sources: Mapping[str, str] | None = None
) -> S:
    """Build ``model`` from values; every fault of them comes in one UserError.

    where: what is being read (a file, "the command line"); sources: key -> a more exact place.
    """
    try:
        return model(**values)
    except ValidationError as error:
        lines = []
        for detail in error.errors():
            key = str(detail["loc"][0]) if detail["loc"] else ""
            place = (sources or {}).get(key, where)
            line = f"  {place}: {describe_error(detail, model)}"
            if detail["type"] == "missing" and sources is not None:
                line = f"  --{key.replace('_', '-')} is required"
            if line not in lines:
                lines.append(line)
        count = f"{len(lines)} mistakes" if len(lines) > 1 else "a mistake"
        raise UserError(f"{count} in the configuration:\n" + "\n".join(lines)) from None


def combine(
    settings: type[C], given: Mapping[str, Any], sources: Mapping[str, str] | None = None
) -> C:
    """Settings of a command from the options given and the YAML that its ``config`` names.

    Precedence: the options, then the YAML's ``TRAIN:`` mapping (with fine_tune, or tune all or
    last N, its own ``FINE_TUNE:`` mapping first), then the defaults; of a run that goes on
    (``earlier``) its own options instead of the YAML's. sources: option -> how the user wrote it.
    All mistakes come in one UserError.
    """
    sources = dict(sources or {})
    values: dict[str, Any] = dict(given)
    if settings.dataset_class is not None:
        earlier = settings.earlier(given)
        named = given.get("config")
        if earlier is None and named is None:
            named = settings.default_config(given)
        path = Path(named or "(no --config)")
        content = load_yaml(path) if named else {}
        recipe = _recipe(content, "TRAIN", path)
        tuned = _recipe(recipe, "FINE_TUNE", path)
        if _trains_weights({**_but_tuning(recipe, given), **given}):
            recipe |= tuned
        where = f"{path}: TRAIN"
        if earlier is not None:
            where, recipe, dataset = str(earlier), *_options_of_run(settings, earlier, given)
            path, content = (path, content) if "config" in given else (earlier, dataset)
        kind = settings.dataset_kind({**recipe, **given})
        assert kind is not None
        content = kind.from_yaml(content, path)
        for name in recipe:
            sources.setdefault(name, where)
        values = {**_but_tuning(recipe, given), **given}
        # Faults of the dataset part are reported together with those of the flags.
        faults: list[str] = []
        for model, part, where in (
            (kind, content, str(path)),
            (settings, values, "the options"),
        ):
            try:
                result = validate(model, part, where, sources if model is settings else None)
                values = {**values, "dataset": result} if model is not settings else values
            except UserError as error:
                faults += str(error).splitlines()[1:]
        if faults:
            raise UserError("mistakes in the configuration:\n" + "\n".join(faults))
    return validate(settings, values, "the options", sources)


def _but_tuning(recipe: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML's options; without its --tune and --fine-tune, two words for one thing, where the
    user gives either."""
    names = {"tune", "fine_tune"}
    return {n: v for n, v in recipe.items() if n not in names} if names & set(given) else recipe


def _trains_weights(options: Mapping[str, Any]) -> bool:
    """Whether they ask for weights of the backbone itself (adapters want other rates)."""
    how = options.get("tune") or ""
    words = how if isinstance(how, list) else str(how).split()
    return bool(options.get("fine_tune")) or words[:1] in (["last"], ["all"])


def _options_of_run(
    settings: type[CommandSettings], path: Path, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options and the dataset part of a run's config.yaml; says which are not taken."""
    content = load_yaml(path)
    dataset = content.pop("dataset", None) or {}
    once = {"resume", "overwrite", "out_dir"}  # of that one start
    options = {n: v for n, v in content.items() if n in settings.model_fields and n not in once}
    log.info("--resume: the options are those of %s", path)
    pairs = [(n, _words(v), _words(options[n])) for n, v in given.items() if n in options]
    now = [f"{name} {new} (it was {old})" for name, new, old in pairs if new != old]
    if now:
        log.info("  but those given now: %s", ", ".join(now))
    return options, dataset


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _recipe(content: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    """Take the options that the YAML gives under ``key`` out of its content."""
    recipe = content.pop(key, None) or {}
    if not isinstance(recipe, dict):
        raise UserError(f"{path}: {key} must be a mapping of options, e.g. '{key}: {{lr: 1e-4}}'")
    return {str(name).replace("-", "_"): value for name, value in recipe.items()}


def choices_of(annotation: Any) -> list[str]:
    """The choices of a Literal annotation (also inside Optional), or an empty list."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for inner in get_args(annotation) for choice in choices_of(inner)]


def to_yaml(settings: BaseModel) -> str:
    """The settings as YAML text, defaults included: what a run writes beside its results."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
