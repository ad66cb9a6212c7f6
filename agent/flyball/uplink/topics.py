"""The names of topics, protocol version 1: building and parsing them.

Device(tenant, device) -> flyball/v1/<tenant>/<device>/<suffix>; parse(topic) -> what was meant, or MessageError

Pure. Every segment is checked both ways, so that no id can add a level or a wildcard; the longest name has 7 slashes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flyball.errors import MessageError

ROOT = "flyball/v1"
SUFFIXES = ("status", "birth", "gap")
LISTS = {"t": "stream", "e": "type", "a": "alarm", "sig": "name"}

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # command types have dots: ladder.install


@dataclass(frozen=True)
class Device:
    """One device's part of the tree. Raises MessageError for ids that the protocol does not allow."""

    tenant: str
    device: str

    def __post_init__(self) -> None:
        _check(_ID, self.tenant, "tenant id")
        _check(_ID, self.device, "device id")

    @property
    def root(self) -> str:
        return f"{ROOT}/{self.tenant}/{self.device}"

    @property
    def status(self) -> str:
        return f"{self.root}/status"

    @property
    def birth(self) -> str:
        return f"{self.root}/birth"

    @property
    def gap(self) -> str:
        return f"{self.root}/gap"

    @property
    def twin_desired(self) -> str:
        return f"{self.root}/twin/desired"

    @property
    def twin_reported(self) -> str:
        return f"{self.root}/twin/reported"

    def telemetry(self, stream: str) -> str:
        return f"{self.root}/t/{_check(_WORD, stream, 'stream')}"

    def event(self, kind: str) -> str:
        return f"{self.root}/e/{_check(_WORD, kind, 'event type')}"

    def alarm(self, name: str) -> str:
        return f"{self.root}/a/{_check(_WORD, name, 'alarm')}"

    def signal(self, name: str) -> str:
        return f"{self.root}/sig/{_check(_WORD, name, 'signal')}"

    def request(self, kind: str, id: str) -> str:
        return f"{self.root}/cmd/{_check(_WORD, kind, 'command type')}/{_check(_ID, id, 'command id')}/req"

    def command_state(self, kind: str, id: str) -> str:
        return f"{self.root}/cmd/{_check(_WORD, kind, 'command type')}/{_check(_ID, id, 'command id')}/st"

    def orders(self) -> tuple[str, ...]:
        """The filters that a device subscribes to."""
        return (f"{self.root}/cmd/+/+/req", f"{self.root}/sig/+")


def server_state(tenant: str, server: str) -> str:
    """Where a fleet server says that it is there. Raises MessageError."""
    return f"{ROOT}/{_check(_ID, tenant, 'tenant id')}/_server/{_check(_ID, server, 'server id')}/state"


def group(tenant: str, name: str = "") -> str:
    """The root that stands for a group of devices, or for all of them; whoever belongs to the tenant may read below
    it. Raises MessageError."""
    level = f"_g.{_check(_ID, name, 'group')}" if name else "_all"
    return f"{ROOT}/{_check(_ID, tenant, 'tenant id')}/{level}"


def group_orders(tenant: str, name: str = "") -> str:
    """The filter for what is ordered to all members of a group, or to all devices. Raises MessageError."""
    return f"{group(tenant, name)}/cmd/+/+/req"


def group_of(topic: str, tenant: str) -> tuple[str | None, str]:
    """The group that an order is for, "" for all devices and None for no group, and the topic below that level. Raises
    MessageError for what is under a group and no order."""
    parts = topic.split("/", 4)
    if len(parts) < 5 or parts[:3] != [*ROOT.split("/"), tenant]:
        return None, topic
    level, rest = parts[3], parts[4]
    if level != "_all" and not level.startswith("_g."):
        return None, topic
    if not re.fullmatch(r"cmd/[^/]+/[^/]+/req", rest):
        raise MessageError(f"topic {_short(topic)}: groups are given orders and nothing else")
    return ("" if level == "_all" else _check(_ID, level[3:], "group")), rest


@dataclass(frozen=True)
class Plain:
    """status, birth, gap, or one of t/, e/, a/, sig/, twin/ with its `name`."""

    device: Device
    suffix: str
    name: str = ""


@dataclass(frozen=True)
class Command:
    device: Device
    kind: str
    id: str
    part: str  # req or st


Topic = Plain | Command


def parse(topic: str) -> Topic:
    """Raises MessageError that says which part is wrong."""
    parts = topic.split("/")
    if len(parts) < 5 or "/".join(parts[:2]) != ROOT:
        raise MessageError(f"topic {_short(topic)}: expected {ROOT}/<tenant>/<device>/...")
    device, rest = Device(parts[2], parts[3]), parts[4:]
    if rest[0] in SUFFIXES and len(rest) == 1:
        return Plain(device, rest[0])
    if rest[0] == "twin" and len(rest) == 2 and rest[1] in ("desired", "reported"):
        return Plain(device, "twin", rest[1])
    if rest[0] in LISTS and len(rest) == 2:
        return Plain(device, rest[0], _check(_WORD, rest[1], LISTS[rest[0]]))
    if rest[0] == "cmd" and len(rest) == 4 and rest[3] in ("req", "st"):
        return Command(device, _check(_WORD, rest[1], "command type"), _check(_ID, rest[2], "command id"), rest[3])
    raise MessageError(f"topic {_short(topic)}: {_short('/'.join(rest))} is no suffix of this protocol")


def _check(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.fullmatch(text):
        allowed = "letters, digits, '_', '-'" + (", '.'" if pattern is _WORD else "")
        raise MessageError(f"{what}: expected 1 to 64 {allowed}, found {_short(text)}")
    return text


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
