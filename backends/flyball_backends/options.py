"""A rung's `[rung.options]` table into the backend's own Options value.

table of plain values -> one check per field of the dataclass -> Options, or one BackendError with every mistake

Imports no vendor library, and never passes an unknown key on: a misspelt option would silently do nothing.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any, Dict, List, Mapping, Tuple, Union

from flyball_backends.checks import nearest
from flyball_backends.contract import Backend, BackendError

_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", type(None): "nothing"}


def decode_options(backend: Backend, mapping: Mapping[str, Any]) -> Any:
    """`mapping` as a value of `backend.Options`, a frozen dataclass of bool, int, float, str, Literal and Optional
    fields. A whole number is taken for a float; nothing else is converted. Raises BackendError with every mistake."""
    hints = _hints(backend)
    fields = {f.name: f for f in dataclasses.fields(backend.Options) if f.init}
    mistakes: List[str] = []
    values: Dict[str, Any] = {}
    for key, raw in mapping.items():
        if key not in fields:
            mistakes.append("{}: unknown key{}".format(key, nearest(str(key), fields, "known keys")))
            continue
        try:
            values[key] = _converted(raw, hints[key])
        except ValueError as error:
            mistakes.append("{}: {}, found {!r}".format(key, error, raw))
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in mapping:
            mistakes.append("{}: missing; expected {}".format(name, _expected(hints[name])))
    if not mistakes:
        try:
            return backend.Options(**values)
        except (ValueError, BackendError) as error:  # the dataclass's own __post_init__ checks
            mistakes.append(str(error))
    lines = "".join("\n  - {}".format(m) for m in mistakes)
    raise BackendError("backend {!r}: its options have {} mistake(s){}".format(backend.name, len(mistakes), lines))


def _hints(backend: Backend) -> Dict[str, Any]:
    if not (isinstance(backend.Options, type) and dataclasses.is_dataclass(backend.Options)):
        raise BackendError(
            "backend {!r}: expected Options to be a dataclass, found {!r}".format(backend.name, backend.Options)
        )
    try:
        hints = typing.get_type_hints(backend.Options)
    except Exception as error:  # annotations are code of the plug-in: a name or operator this Python lacks
        raise BackendError(
            "backend {!r}: the annotations of its Options cannot be read: {}".format(backend.name, error)
        ) from error
    for name, hint in hints.items():
        for member in _members(hint):
            if typing.get_origin(member) is not typing.Literal and member not in _WORDS:
                raise BackendError(
                    "backend {!r}: Options.{}: expected bool, int, float, str, Literal or Optional, found {}".format(
                        backend.name, name, member
                    )
                )
    return hints


def _members(hint: Any) -> Tuple[Any, ...]:
    """The types that a hint allows; `X | Y` has an origin of its own from Python 3.10 on."""
    origin = typing.get_origin(hint)
    if origin is Union or getattr(origin, "__name__", "") == "UnionType":
        return typing.get_args(hint)
    return (hint,)


def _converted(raw: Any, hint: Any) -> Any:
    for member in _members(hint):
        if typing.get_origin(member) is typing.Literal:
            if any(type(raw) is type(word) and raw == word for word in typing.get_args(member)):
                return raw
        elif member is float:
            # A bool is an int to Python, and a NaN a float; as an option neither is a number.
            if isinstance(raw, (int, float)) and not isinstance(raw, bool) and math.isfinite(raw):
                return float(raw)
        elif type(raw) is member:
            return raw
    raise ValueError("expected {}".format(_expected(hint)))


def _expected(hint: Any) -> str:
    words = []
    for member in _members(hint):
        if typing.get_origin(member) is typing.Literal:
            words.append("one of {}".format(", ".join(repr(word) for word in typing.get_args(member))))
        else:
            words.append(_WORDS[member])
    return " or ".join(words)
