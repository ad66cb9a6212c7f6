"""What commands, settings and twin need of a device, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from flyball.errors import ConfigError, StateError
from flyball.uplink.configuring import Tables


class Documents:
    """Implements configuring.Documents in memory; `broken` is a full disk, `fail_at` the write that fails."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.writes = 0
        self.fail_at: int | None = None

    async def document(self, name: str) -> bytes | None:
        return self.bodies.get(name)

    async def save_document(self, name: str, body: bytes) -> None:
        self.writes += 1
        if self.fail_at == self.writes:
            raise StateError("disk full")
        self.bodies[name] = body


class Daemon:
    """Implements configuring.Configurable. Unwell as soon as `sick` is among what is applied; refuses `impossible`
    modes."""

    def __init__(self) -> None:
        self.applied: list[Tables] = []
        self.ill: set[str] = set()
        self.after_s = 0.0

    def examine(self, overlay: Tables) -> Sequence[str]:
        mode = overlay.get("governor", {}).get("mode")
        return () if mode != "impossible" else ("what the fleet has set: governor.mode: expected another",)

    async def apply(self, overlay: Tables) -> None:
        if overlay.get("governor", {}).get("mode") == "unappliable":
            raise ConfigError("it does not go")
        self.applied.append(overlay)
        self.ill.discard("sick")
        if overlay.get("governor", {}).get("mode") == "sickening":
            asyncio.get_running_loop().call_later(self.after_s, self.ill.add, "sick")

    def unwell(self) -> Collection[str]:
        return set(self.ill)


class Order:
    """Implements commands.Order; keeps what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    async def step(self, name: str, progress: float | None = None) -> None:
        self.said.append((name, progress))

    async def verifying(self, step: str) -> None:
        self.said.append(("verifying", step))
