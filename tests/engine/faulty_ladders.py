"""Ladders of the faulty backend, and runners on the real event loop with real worker processes."""

import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from flyball.clock import SystemClock
from flyball.config import Engine
from flyball.engine.catalog import EngineCatalog
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.events import Event, Events
from flyball.ladder.manifest import load

QUICK = Engine(request_timeout_s=3.0, load_timeout_s=3.0, drain_timeout_s=2.0, restart_backoff_s=0.05)


def write_scripts(root: Path, scripts: dict[str, dict[str, Any]], version: str = "1", extra: str = "") -> Path:
    """A tensor ladder "t" with a rung for every script."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["schema = 1", "[ladder]", 'name = "t"', f'version = "{version}"', 'task = "tensor"']
    for side, name in (("input", "x"), ("output", "y")):
        lines += [f"[[{side}]]", f'name = "{name}"', 'datatype = "FP32"', "shape = [1, -1]"]
    for name, script in scripts.items():
        content = json.dumps(script).encode()
        (root / f"{name}.json").write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        lines += ["[[rung]]", f'name = "{name}"', 'backend = "faulty"']
        lines += [f'artifact = "{name}.json"', f'sha256 = "{sha256}"', extra]
    (root / "flyball-ladder.toml").write_text("\n".join(lines) + "\n")
    return root


@asynccontextmanager
async def running(
    root: Path,
    config: Engine = QUICK,
    first: str = "",
    heard: Callable[[Event], None] | None = None,
    standby_bytes: int = 256 << 20,
) -> AsyncIterator[LadderRunner]:
    events = Events()
    if heard is not None:
        events.subscribe(heard)
    standby = Standby(standby_bytes)
    runner = LadderRunner(load(root), config, standby, events, SystemClock())
    await runner.start(first)
    await runner.settled()
    try:
        yield runner
    finally:
        await runner.close()


@asynccontextmanager
async def catalogue(config: Engine = QUICK) -> AsyncIterator[EngineCatalog]:
    catalog = EngineCatalog(config, Events(), SystemClock())
    try:
        yield catalog
    finally:
        await catalog.close()


def children() -> list[int]:
    """This process's workers, oldest first."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(p) for p in found if b"flyball.engine.worker" in Path(f"/proc/{p}/cmdline").read_bytes()]
