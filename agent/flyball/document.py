"""TOML text into frozen Structs, with every mistake reported at once.

TOML -> plain data -> decode(data, Struct) -> value | list of problems with file and key

A problem line reads `FILE: KEY: what was expected, what was found`. Pure but for `read_toml`; probing hardware or
opening artifacts is never done here.
"""

from __future__ import annotations

import difflib
import json
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import msgspec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

S = TypeVar("S", bound=msgspec.Struct)
Where: TypeAlias = Callable[[str], str]


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


def decode(
    data: Mapping[str, Any],
    kind: type[S],
    where: str | Where,
    problems: list[str],
    key: str = "",
    *,
    fragment: bool = False,
) -> S | None:
    """`data` as a `kind`; None when it has mistakes, each of which is then a line in `problems`.

    Nested Structs, lists of Structs, maps of Structs and tagged unions of Structs are entered, so that the mistakes
    of all of them are found in one go; everything else is checked by msgspec field by field. `where` is the file, or
    tells it from the key. A `fragment` is to be laid over other data: what it lacks, and what a Struct's
    __post_init__ says of several keys together, is left to the whole, and the result is always None.
    """
    walk = _Walk(where if callable(where) else lambda _: where, problems, fragment)
    found: S | None = walk.struct(data, kind, key)
    return None if fragment else found


class _Walk:
    """One pass over a document."""

    def __init__(self, where: Where, problems: list[str], fragment: bool) -> None:
        self._where = where
        self._problems = problems
        self._fragment = fragment

    def struct(self, data: Mapping[str, Any], kind: Any, key: str) -> Any:
        fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
        tag_field = kind.__struct_config__.tag_field
        before = len(self._problems)
        values: dict[str, Any] = {}
        for name in data:
            if name not in fields and name != tag_field:
                self._add(_join(key, name), f"unknown key{_nearest(name, fields)}")
        for name, field in fields.items():
            place = _join(key, name)
            if name in data:
                values[field.name] = self._value(data[name], field.type, place)
            elif field.required and not self._fragment:
                self._add(place, f"missing; expected {describe(field.type)}")
        if len(self._problems) > before or self._fragment:
            return None
        try:
            return kind(**values)
        except ValueError as error:  # a Struct's own __post_init__ checks
            self._add(key or "file", str(error))
            return None

    def _value(self, raw: Any, kind: Any, place: str) -> Any:
        structs = [t for t in _members(kind) if _is_struct(t)]
        if structs and isinstance(raw, Mapping):
            struct = structs[0] if len(structs) == 1 else self._tagged(raw, structs, place)
            return struct and self.struct(raw, struct, place)
        origin, args = get_origin(kind), get_args(kind)
        if origin in (tuple, list) and args and any(_is_struct(t) for t in _members(args[0])):
            if not isinstance(raw, list):
                self._add(place, f"expected a list of tables, found {_found(raw)}")
                return None
            return tuple(self._value(item, args[0], f"{place}[{i}]") for i, item in enumerate(raw))
        if origin in (dict, Mapping, typing.Mapping) and len(args) == 2 and _is_struct(args[1]):
            if not isinstance(raw, Mapping):
                self._add(place, f"expected a table, found {_found(raw)}")
                return None
            for name in raw:
                self._value(name, args[0], f"{place}.{name} (the name)")
            return {k: self._value(v, args[1], _join(place, k)) for k, v in raw.items()}
        if structs:
            self._add(place, f"expected a table, found {_found(raw)}")
            return None
        try:
            return msgspec.convert(raw, kind)
        except msgspec.ValidationError:
            self._add(place, f"expected {describe(kind)}, found {_found(raw)}")
            return None

    def _tagged(self, raw: Mapping[str, Any], kinds: list[Any], place: str) -> Any:
        field = kinds[0].__struct_config__.tag_field
        by_tag = {k.__struct_config__.tag: k for k in kinds}
        tag = raw.get(field)
        if tag not in by_tag:
            found = f"found {_found(tag)}" if field in raw else "it is missing"
            self._add(_join(place, field), f"expected one of {', '.join(map(str, by_tag))}; {found}")
            return None
        return by_tag[tag]

    def _add(self, place: str, text: str) -> None:
        self._problems.append(f"{self._where(place)}: {place}: {text}")


def quoted(text: str) -> str:
    """A TOML basic string. JSON's escapes are TOML's, except that TOML forbids DEL as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def describe(kind: Any) -> str:
    """A type in words that a reader of TOML knows: "text", "a whole number from 1 to 64", "one of text, json". A
    Meta(description=...) has the first word."""
    members = [t for t in _members(kind) if t is not type(None)]
    if len(members) > 1:
        return " or ".join(dict.fromkeys(map(describe, members)))
    kind = members[0]
    if get_origin(kind) is Annotated:
        inner, metas = get_args(kind)[0], kind.__metadata__
        described = [str(m.description) for m in metas if getattr(m, "description", None)]
        return described[0] if described else describe(inner) + "".join(map(_bounds, metas))
    if _is_struct(kind):
        return "a table"
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(map(str, args))
    if origin in (tuple, list):
        return f"a list, each {describe(args[0])}" if args else "a list"
    if origin is dict:
        return f"a table, each value {describe(args[1])}"
    return _WORDS.get(kind, str(getattr(kind, "__name__", kind)))


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}


def _bounds(meta: Any) -> str:
    text = ""
    if meta.gt is not None:
        text += f" above {meta.gt:.10g}"
    if meta.ge is not None:
        text += f" from {meta.ge:.10g}"
    if meta.le is not None:
        text += f"{',' * (meta.gt is not None)} {'to' if meta.ge is not None else 'at most'} {meta.le:.10g}"
    if meta.min_length is not None:
        text += f", no shorter than {meta.min_length}"
    if meta.max_length is not None:
        text += f", no longer than {meta.max_length}"
    return text


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known))}"


def _found(raw: Any) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."
