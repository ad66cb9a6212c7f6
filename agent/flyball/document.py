"""TOML text into frozen Structs, with every mistake reported at once.

TOML -> plain data -> decode(data, Struct) -> value | list of problems with file and key

A problem line reads `FILE: KEY: what was expected, what was found`. Pure but for `read_toml`; probing hardware or
opening artifacts is never done here.
"""

from __future__ import annotations

import difflib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

S = TypeVar("S", bound=msgspec.Struct)


def read_toml(path: Path, problems: list[str]) -> dict[str, Any]:
    """The file's tables; an unreadable or malformed file adds a problem and gives an empty table."""
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return tables
    except FileNotFoundError:
        problems.append(f"{path}: no such file")
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: not UTF-8 text (byte {error.start}); TOML files are UTF-8")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}: not valid TOML: {error}")
    return {}


def decode(data: Mapping[str, Any], kind: type[S], where: str, problems: list[str], key: str = "") -> S | None:
    """`data` as a `kind`; None when it has mistakes, each of which is then a line in `problems`.

    Nested Structs, lists of Structs, maps of Structs and tagged unions of Structs are entered, so that the mistakes
    of all of them are found in one go; everything else is checked by msgspec field by field.
    """
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
    tag_field = kind.__struct_config__.tag_field
    before = len(problems)
    values: dict[str, Any] = {}
    for name in data:
        if name not in fields and name != tag_field:
            problems.append(f"{where}: {_join(key, name)}: unknown key{_nearest(name, fields)}")
    for name, field in fields.items():
        place = _join(key, name)
        if name in data:
            values[field.name] = _value(data[name], field.type, where, problems, place)
        elif field.required:
            problems.append(f"{where}: {place}: missing; expected {_describe(field.type)}")
    if len(problems) > before:
        return None
    try:
        return kind(**values)
    except ValueError as error:  # a Struct's own __post_init__ checks
        problems.append(f"{where}: {key or 'file'}: {error}")
        return None


def _value(raw: Any, kind: Any, where: str, problems: list[str], place: str) -> Any:
    structs = [t for t in _members(kind) if _is_struct(t)]
    if structs and isinstance(raw, Mapping):
        struct = structs[0] if len(structs) == 1 else _tagged(raw, structs, where, problems, place)
        return struct and decode(raw, struct, where, problems, place)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (tuple, list) and args and any(_is_struct(t) for t in _members(args[0])):
        if not isinstance(raw, list):
            problems.append(f"{where}: {place}: expected a list of tables, found {_found(raw)}")
            return None
        return tuple(_value(item, args[0], where, problems, f"{place}[{i}]") for i, item in enumerate(raw))
    if origin in (dict, Mapping, typing.Mapping) and len(args) == 2 and _is_struct(args[1]):
        if not isinstance(raw, Mapping):
            problems.append(f"{where}: {place}: expected a table, found {_found(raw)}")
            return None
        for name in raw:
            _value(name, args[0], where, problems, f"{place}.{name} (the name)")
        return {k: _value(v, args[1], where, problems, _join(place, k)) for k, v in raw.items()}
    if structs:
        problems.append(f"{where}: {place}: expected a table, found {_found(raw)}")
        return None
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        wanted = _expectation(kind)
        said = f"expected {wanted}, found" if wanted else f"{_lower(str(error))}; found"
        problems.append(f"{where}: {place}: {said} {_found(raw)}")
        return None


def _tagged(raw: Mapping[str, Any], kinds: list[Any], where: str, problems: list[str], place: str) -> Any:
    field = kinds[0].__struct_config__.tag_field
    by_tag = {k.__struct_config__.tag: k for k in kinds}
    tag = raw.get(field)
    if tag not in by_tag:
        found = f"found {_found(tag)}" if field in raw else "it is missing"
        problems.append(f"{where}: {_join(place, field)}: expected one of {', '.join(map(str, by_tag))}; {found}")
        return None
    return by_tag[tag]


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _expectation(kind: Any) -> str:
    """What the field's own Meta(description=...) says, in words that beat a regular expression."""
    for member in _members(kind):
        for meta in getattr(member, "__metadata__", ()):
            if getattr(meta, "description", None):
                return str(meta.description)
    return ""


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known))}"


def _describe(kind: Any) -> str:
    if _is_struct(kind):
        return "a table"
    return str(getattr(kind, "__name__", kind)).replace("typing.", "")


def _found(raw: Any) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
