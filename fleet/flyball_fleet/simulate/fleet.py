"""Many simulated devices in one process, on one event loop.

N, Habits -> Fleet.start -> devices, each with its link -> Fleet.stop

Devices begin spread over a second for every hundred, as a real fleet that is switched on does not begin in one
millisecond either; after that each keeps its own time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from flyball.clock import Clock
from flyball.uplink.topics import Device
from flyball_fleet.address import Address
from flyball_fleet.simulate.device import Habits, SimulatedDevice

PER_S = 100.0


class Fleet:
    def __init__(
        self,
        address: Address,
        tenant: str,
        number: int,
        habits: Habits,
        clock: Clock,
        *,
        prefix: str = "sim",
        seed: int = 0,
    ) -> None:
        self._number = number
        self._seed = random.Random(seed)  # noqa: S311 - a simulation
        width = max(4, len(str(number)))
        self.devices: Sequence[SimulatedDevice] = [
            SimulatedDevice(
                address,
                Device(tenant, f"{prefix}-{i + 1:0{width}}"),
                habits,
                clock,
                random.Random(f"{seed}/{i}"),  # noqa: S311
            )
            for i in range(number)
        ]
        self._links: list[asyncio.Task[None]] = []
        self._lives: list[asyncio.Task[None]] = []

    def ready(self) -> int:
        return sum(device.ready for device in self.devices)

    def connects(self) -> int:
        return sum(device.connects for device in self.devices)

    def failed(self) -> str:
        """What ended a device's work, in words; "" while all live."""
        for task in [*self._links, *self._lives]:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return repr(task.exception())
        return ""

    async def start(self) -> None:
        for device in self.devices:
            self._lives.append(asyncio.create_task(device.live(), name=f"{device.name}-lives"))
            self._links.append(asyncio.create_task(device.keep_linked(), name=f"{device.name}-link"))
            await asyncio.sleep(1 / PER_S)

    async def stop(self) -> dict[str, dict[str, dict[str, int]]]:
        """Hands on what is left and says goodbye. What was sent: device -> epoch -> stream -> numbers."""
        await _end(self._lives)
        await asyncio.gather(*(device.leave() for device in self.devices))
        await _end(self._links)
        return {device.name: {device.epoch: device.sent()} for device in self.devices}


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
