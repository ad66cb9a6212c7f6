"""The control interface, for the Unix socket only: everything of http.py, and the orders and looks of an operator.

client.py -> socket -> endpoint -> port (steering, reloading, probing, ...) -> control_api Struct -> JSON

Who may open the socket (mode 0660, group flyball) may do all of this; TCP listeners never get these endpoints.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from flyball.clock import Clock
from flyball.control_api import (
    AUTO,
    DaemonInfo,
    Decisions,
    Devices,
    LadderView,
    RungOrder,
    Status,
)
from flyball.errors import RequestError
from flyball.ports import (
    Catalog,
    EnergyMeter,
    Ladder,
    Pin,
    Probing,
    Readings,
    Reloading,
    Steering,
    UplinkStatus,
)
from flyball.serving.body import Intake
from flyball.serving.http import Exposition, HttpApi
from flyball.serving.web import Ask, Endpoint, Reply, json_reply

_DECISIONS = 50  # told when the caller does not say how many
_DECISIONS_MAX = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What an operator can look at and turn. `info` is asked anew each time, because a reload may change the mode;
    `recording` gives what the governor sees and decides from now on, as JSON lines, and raises UnavailableError while
    somebody else records; `uplink` is None when there is none; `window_s` is the time over which the status tells
    latencies."""

    catalog: Catalog
    readings: Readings
    energy: EnergyMeter
    steering: Steering
    pins: Callable[[], Sequence[Pin]]
    reloading: Reloading
    probing: Probing
    info: Callable[[], DaemonInfo]
    recording: Callable[[], AsyncGenerator[bytes, None]]
    clock: Clock
    started_s: float
    uplink: Callable[[], UplinkStatus] | None = None
    window_s: float = 5.0


def control_app(
    controls: Controls, exposition: Exposition, max_input_bytes: Callable[[str], int], intake: Intake
) -> HttpApi:
    """Naming a rung is always allowed here, and no Host is checked: no web page can open a Unix socket."""
    return HttpApi(
        controls.catalog,
        exposition,
        max_input_bytes,
        intake,
        allow_pin=True,
        more=_Orders(controls).endpoints(),
    )


class _Orders:
    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "/control/status", self.status),
            Endpoint("GET", "/control/decisions", self.decisions),
            Endpoint("GET", "/control/recording", self.recording),
            Endpoint("GET", "/control/devices", self.devices),
            Endpoint("GET", "/control/ladders/{ladder}", self.interface),
            Endpoint("POST", "/control/ladders/{ladder}/rung", self.rung),
            Endpoint("POST", "/control/reload", self.reload),
        ]

    async def status(self, ask: Ask) -> Reply:
        c = self._controls
        info = c.info()
        return json_reply(
            Status(
                version=info.version,
                device=info.device,
                board=info.board,
                mode=info.mode,
                uptime_s=c.clock.monotonic_s() - c.started_s,
                ladders=tuple(self._view(ladder) for ladder in c.catalog.ladders()),
                readings=tuple(c.readings.latest()),
                sensors=tuple(c.readings.health()),
                energy=c.energy.energy(),
                pins=tuple(c.pins()),
                uplink=c.uplink() if c.uplink is not None else None,
            )
        )

    def _view(self, ladder: Ladder) -> LadderView:
        status, totals = ladder.status(), ladder.totals()
        finite = {bound: n for bound, n in totals.latency_buckets.items() if bound != float("inf")}
        spent_j = {r.name: self._controls.energy.joules_per_inference(status.name, r.name) for r in status.rungs}
        return LadderView(
            status=status,
            window=ladder.window(self._controls.window_s),
            totals=msgspec.structs.replace(totals, latency_buckets=finite),
            joules_per_inference={rung: joules for rung, joules in spent_j.items() if joules is not None},
        )

    async def decisions(self, ask: Ask) -> Reply:
        ladder = ask.query.get("ladder")
        if ladder is not None:
            self._controls.catalog.get(ladder)
        text = ask.query.get("limit", str(_DECISIONS))
        if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= _DECISIONS_MAX):
            raise RequestError(f"limit: expected a number from 1 to {_DECISIONS_MAX}, found {text[:40]!r}")
        return json_reply(Decisions(decisions=tuple(self._controls.steering.decisions(ladder)[-int(text) :])))

    async def recording(self, ask: Ask) -> Reply:
        """Until the client goes away."""
        return Reply(b"", headers=((b"content-type", b"application/jsonl"),), stream=self._controls.recording())

    async def devices(self, ask: Ask) -> Reply:
        return json_reply(Devices(devices=tuple(await self._controls.probing.devices())))

    async def interface(self, ask: Ask) -> Reply:
        return json_reply(self._controls.catalog.get(ask.path["ladder"]).interface)

    async def rung(self, ask: Ask) -> Reply:
        order = _decode(ask.body, RungOrder)
        ladder = ask.path["ladder"]
        self._controls.catalog.get(ladder)
        if order.rung == AUTO:
            if order.for_s is not None or order.force:
                raise RequestError(f"for_s, force: go with a rung to hold, not with {AUTO!r}")
            await self._controls.steering.release(ladder)
            return json_reply({})
        if order.for_s is not None and order.for_s <= 0:
            raise RequestError(f"for_s: expected more than 0 seconds, or null for no limit, found {order.for_s}")
        report = await self._controls.steering.pin(ladder, order.rung, order.for_s, order.force)
        return json_reply({} if report is None else report)

    async def reload(self, ask: Ask) -> Reply:
        return json_reply(await self._controls.reloading.reload())


def _decode(body: bytes | bytearray, kind: type[T]) -> T:
    decoder: Any = msgspec.json.Decoder(kind)
    try:
        value: T = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the request's body: {error}") from None
    return value
