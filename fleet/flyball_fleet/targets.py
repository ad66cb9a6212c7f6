"""Which devices an order is for.

"line4", "@press", "site=oslo", "@all" + what is known of the devices -> names, or RequestError. Pure.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from flyball.errors import RequestError

ALL = "@all"


@dataclass(frozen=True)
class Member:
    state: str = ""
    groups: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


def select(target: str, members: Mapping[str, Member]) -> list[str]:
    """By name. Raises RequestError when nobody is meant. A single device need not be known: the broker keeps the order
    for it."""
    if target == ALL:
        found = sorted(members)
    elif target.startswith("@"):
        found = sorted(name for name, m in members.items() if target[1:] in m.groups)
    elif "=" in target:
        tag, _, value = target.partition("=")
        found = sorted(name for name, m in members.items() if m.tags.get(tag) == value)
    else:
        return [target]
    if not found:
        known = sorted({f"@{g}" for m in members.values() for g in m.groups})
        known += sorted({f"{k}={v}" for m in members.values() for k, v in m.tags.items()})
        hint = f"known: {', '.join([ALL, *known][:12])}" if members else "no device has said anything to this broker"
        raise RequestError(f"{target} names no device; {hint}")
    return found


def sample(names: Sequence[str], wanted: str, source: random.Random) -> list[str]:
    """ "5%" or "3" of them at random, at least one. Raises RequestError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", wanted.strip())
    number = float(match[1]) if match else 0.0
    if match is None or number <= 0 or (match[2] and number > 100) or (not match[2] and not number.is_integer()):
        raise RequestError(f"--sample: expected a share such as 5% or a number such as 3, found {wanted!r}")
    size = math.ceil(len(names) * number / 100) if match[2] else int(number)
    return sorted(source.sample(list(names), min(size, len(names))))


def arguments(words: Iterable[str]) -> dict[str, object]:
    """NAME=VALUE ... -> the arguments of an order. A value that reads as JSON is that, else it is a string. Raises
    RequestError."""
    found: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise RequestError(f"expected NAME=VALUE, found {word!r}")
        try:
            found[name] = msgspec.json.decode(value)
        except msgspec.MsgspecError:
            found[name] = value
    return found


def changed(document: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A desired document with `groups=a,b`, `tags.NAME=VALUE` and `config.KEY=VALUE` laid over it; an empty VALUE takes
    the member away. Raises RequestError."""
    doc = {**document}
    for setting in settings:
        name, equals, value = setting.partition("=")
        section, dot, key = name.partition(".")
        if not equals or (section == "groups") == bool(dot) or section not in ("groups", "tags", "config"):
            raise RequestError(f"expected groups=a,b, tags.NAME=VALUE or config.KEY=VALUE, found {setting!r}")
        if section == "groups":
            doc["groups"] = [g for g in value.split(",") if g]
            continue
        before = doc.get(section)
        members = {**before} if isinstance(before, dict) else {}
        if value:
            members[key] = value if section == "tags" else next(iter(arguments([f"{key}={value}"]).values()))
        else:
            members.pop(key, None)
        doc[section] = members
    return doc
