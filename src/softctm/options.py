"""Options declared once: a frozen dataclass whose fields say how the command line shows them.

From there they reach the Python API (the dataclass), the command line (`add_options`, `options_from`) and the
run's record (`recorded`).
"""

from __future__ import annotations

import argparse
from dataclasses import MISSING, asdict, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from softctm.errors import UsageError

_Options = TypeVar("_Options")


def option(
    default: Any, help: str, *, metavar: str | None = None, choices: tuple[Any, ...] | None = None
) -> Any:
    """A field of an options class.

    Parameters
    ----------
    default
        What holds where nothing is said.
    help : str
        One line for `--help`.
    metavar : str, optional
        What `--help` calls the value.
    choices : tuple, optional
        The values that are allowed; those of a Literal need not be said again. For a tuple, of each part.
    """
    return field(default=default, metadata={"help": help, "metavar": metavar, "choices": choices})


def add_options(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Add the options of a class to a command, "--also" for a field `also`."""
    hints = get_type_hints(kind)
    for declared in fields(kind):
        if "help" not in declared.metadata:
            continue
        hint, flag = _without_none(hints[declared.name]), "--" + declared.name.replace("_", "-")
        help, metavar = declared.metadata["help"], declared.metadata["metavar"]
        if hint is bool:
            parser.add_argument(flag, action="store_true", help=help)
            continue
        default = None if declared.default is MISSING else declared.default
        if default not in (None, ()):
            help += f" (default: {default})"
        kinds: dict[str, Any] = {"type": _parser_of(hint)}
        choices = _choices(declared.metadata, hint)
        if choices and get_origin(hint) is not tuple:
            kinds["choices"] = choices
        else:
            kinds["metavar"] = metavar
        parser.add_argument(flag, default=default, help=help, **kinds)


def options_from(kind: type[_Options], args: argparse.Namespace) -> _Options:
    """The options object of what was parsed; UsageError where it refuses a value."""
    names = [declared.name for declared in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(args, name) for name in names if hasattr(args, name)})


def check_choices(options: Any) -> None:
    """Refuse values outside of their choices: for `__post_init__`.

    Raises
    ------
    UsageError
        It names the option and what it may be.
    """
    hints = get_type_hints(type(options))
    for declared in fields(options):
        value, hint = getattr(options, declared.name), _without_none(hints[declared.name])
        choices = _choices(declared.metadata, hint)
        if not choices or value is None:
            continue
        for part in value if isinstance(value, tuple) else (value,):
            if part not in choices:
                flag = declared.name.replace("_", "-")
                raise UsageError(f"--{flag} must be one of {', '.join(map(str, choices))}, not {part}")


def recorded(options: Any) -> dict[str, Any]:
    """The options as JSON holds them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}


def _choices(metadata: Any, hint: Any) -> tuple[Any, ...]:
    chosen: tuple[Any, ...] | None = metadata.get("choices")
    return chosen or (get_args(hint) if get_origin(hint) is Literal else ())


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    return hint


def _parser_of(hint: Any) -> Any:
    if get_origin(hint) is tuple:
        return lambda text: tuple(part for part in text.split(",") if part)
    return str if get_origin(hint) is Literal else hint
