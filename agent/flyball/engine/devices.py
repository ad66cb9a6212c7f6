"""The accelerators of this machine: every installed backend asked in a child process of its own.

entry points (names only) -> worker per backend -> probe -> AcceleratorInfo
"""

from __future__ import annotations

import asyncio
import logging
from importlib.metadata import entry_points

from flyball.engine.process import probe
from flyball.errors import FlyballError
from flyball.ports import AcceleratorInfo

log = logging.getLogger(__name__)

GROUP = "flyball.backends"
PROBE_TIMEOUT_S = 20.0


async def list_devices() -> list[AcceleratorInfo]:
    """A backend that dies or hangs while it looks is logged and counts as having found nothing."""
    names = sorted({e.name for e in entry_points(group=GROUP)})
    found = await asyncio.gather(*(probe_backend(name) for name in names))
    return [accelerator for accelerators in found for accelerator in accelerators]


async def probe_backend(backend: str) -> list[AcceleratorInfo]:
    try:
        found = await probe(backend, PROBE_TIMEOUT_S)
    except FlyballError as error:
        log.warning("the accelerators of the backend %s could not be listed: %s", backend, error)
        return []
    return [AcceleratorInfo(backend=backend, kind=a["kind"], id=a["id"], detail=a["detail"]) for a in found]
