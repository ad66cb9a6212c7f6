"""This device as Home Assistant sees it: sensors for the machine, and for every ladder its latency and its rung.

view of catalog and readings -> discovery (one retained message) and state -> broker -> Home Assistant
homeassistant/status online -> random delay -> discovery again;  ha/set/<ladder> -> an order `rung` like any other

Plain JSON, never deflated, because Home Assistant cannot inflate. What was not measured is null there ("unknown"),
never zero. A chosen rung takes the way of every order: the allow list, the journal, the governor.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from flyball import __version__
from flyball.errors import MessageError, StateError
from flyball.ports import Catalog, Readings
from flyball.uplink.handlers import AUTO
from flyball.uplink.messages import MAX_PAYLOAD
from flyball.uplink.outbox import Publication
from flyball.uplink.topics import Device

log = logging.getLogger(__name__)

DELAY_S = (0.5, 10.0)  # of the answer to "online", so that a house full of devices does not answer at once
WINDOW_S = 60.0  # of the latency
ORDER_TTL_S = 60
_AVAILABLE = "{{ 'online' if value_json.state in ['ready', 'sleeping'] else 'offline' }}"


class LadderView(msgspec.Struct, frozen=True, kw_only=True):
    rung: str | None
    p95_ms: float | None
    rungs: tuple[str, ...] = ()


class View(msgspec.Struct, frozen=True, kw_only=True):
    power_w: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    ladders: Mapping[str, LadderView] = {}


Order = Callable[[str, str, bytes, float | None, Callable[[], None]], Awaitable[None]]


class HomeAssistant:
    """`order` is Execution.receive; `publish` hands to the outbox; `rungs` says whether the fleet may choose them."""

    def __init__(
        self,
        *,
        device: Device,
        prefix: str,
        period_s: float,
        view: Callable[[], View],
        rungs: bool,
        order: Order,
        publish: Callable[[Publication], None],
        delay_s: Callable[[], float] = lambda: random.uniform(*DELAY_S),  # noqa: S311  # no secret
    ) -> None:
        self._device = device
        self._prefix = prefix
        self._period_s = period_s
        self._view = view
        self._rungs = rungs
        self._order = order
        self._publish = publish
        self._delay_s = delay_s
        self._told = b""  # the discovery that the broker was last given
        self._timer: asyncio.TimerHandle | None = None

    def watched(self) -> Sequence[str]:
        """The filters to subscribe to."""
        return (f"{self._prefix}/status", *([f"{self._device.root}/ha/set/+"] if self._rungs else []))

    async def take(self, topic: str, payload: bytes, retain: bool) -> bool:
        """Whether the message was for here. Raises MessageError, StateError."""
        if topic == f"{self._prefix}/status":
            if payload == b"online" and not retain:
                self._later()
            return True
        head = f"{self._device.root}/ha/set/"
        if not topic.startswith(head):
            return False
        if retain:
            raise MessageError(f"{topic}: retained, so it would come again and again; not done")
        await self._choose(topic[len(head) :], payload)
        return True

    def announce(self) -> None:
        """Discovery and state: at the begin of a session."""
        self._told = b""
        self.tell()

    def tell(self) -> None:
        """The state, and the discovery where it has changed."""
        view = self._view()
        found = msgspec.json.encode(discovery(self._device, view, self._rungs))
        if found != self._told:
            # The id by itself: access rules of mosquitto take %u as a whole level only.
            self._send(f"{self._prefix}/device/{self._device.device}/config", found)
            self._told = found
        self._send(f"{self._device.root}/ha/state", msgspec.json.encode(view))

    async def run(self) -> None:
        """For ever; cancelled by the daemon's end."""
        while True:
            await asyncio.sleep(self._period_s)
            try:
                self.tell()
            except Exception:
                # The boundary of this loop.
                log.exception("uplink: the state for Home Assistant cannot be told")

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _later(self) -> None:
        self.end()
        self._timer = asyncio.get_running_loop().call_later(self._delay_s(), self.announce)

    async def _choose(self, ladder: str, payload: bytes) -> None:
        rung = payload.decode("utf-8", "replace")
        if not 0 < len(rung) <= 64:
            raise MessageError(f"ha/set/{ladder}: expected the name of a rung, or {AUTO!r}, found {len(payload)} bytes")
        order = msgspec.json.encode({"args": {"ladder": ladder, "rung": rung}})
        # Lost with the connection at worst, and then chosen again by a person: there is nothing to acknowledge.
        try:
            await self._order("rung", f"ha-{secrets.token_hex(8)}", order, ORDER_TTL_S, lambda: None)
        except StateError as error:
            raise MessageError(f"ha/set/{ladder}: could not be written down, so it was not done: {error}") from error

    def _send(self, topic: str, payload: bytes) -> None:
        if len(payload) > MAX_PAYLOAD:
            log.error("uplink: %s has %d bytes, expected at most %d; not sent", topic, len(payload), MAX_PAYLOAD)
            return
        self._publish(Publication(topic, payload, "state", retain=True))


def view(catalog: Catalog, readings: Readings) -> View:
    latest = readings.latest()
    watts = {r.scope: r.value for r in latest if r.quantity == "power"}
    scopes = ("wall", "machine", "board", "module", "soc", "estimated")  # what was measured nearest to the plug
    throttled = [r.value for r in latest if r.quantity == "throttled"]
    ladders = {}
    for ladder in catalog.ladders():
        status, window = ladder.status(), ladder.window(WINDOW_S)
        p95_s = window.p95_s if window else None
        ladders[ladder.name] = LadderView(
            rung=status.active,
            p95_ms=None if p95_s is None else round(1000 * p95_s, 2),
            rungs=tuple(r.name for r in status.rungs),
        )
    return View(
        power_w=next((round(watts[s], 2) for s in scopes if s in watts), None),
        temperature_c=max((round(r.value, 1) for r in latest if r.quantity == "temperature"), default=None),
        throttled=any(throttled) if throttled else None,
        ladders=ladders,
    )


def object_id(device: Device) -> str:
    return f"flyball_{device.tenant}_{device.device}"


def discovery(device: Device, view: View, rungs: bool) -> dict[str, Any]:
    """Home Assistant's device discovery: `dev`, `o`, `cmps`, and one availability for all of them."""
    us = object_id(device)
    cmps: dict[str, Any] = {
        "power": _sensor(us, "power", "Power", "power_w", dev_cla="power", unit_of_meas="W"),
        "temperature": _sensor(
            us, "temperature", "Temperature", "temperature_c", dev_cla="temperature", unit_of_meas="°C"
        ),
        "throttled": {
            "p": "binary_sensor",
            "uniq_id": f"{us}_throttled",
            "name": "Throttled",
            "dev_cla": "problem",
            # null stays unknown: no sensor tells.
            "val_tpl": "{{ {true: 'ON', false: 'OFF'}.get(value_json.throttled, 'None') }}",
        },
    }
    for name, ladder in view.ladders.items():
        key, value = _key(name), f"ladders['{name}']"
        cmps[f"{key}_p95"] = _sensor(
            us, f"{key}_p95", f"{name} latency p95", f"{value}.p95_ms", dev_cla="duration", unit_of_meas="ms"
        )
        common = {
            "uniq_id": f"{us}_{key}_rung",
            "name": f"{name} rung",
            "val_tpl": f"{{{{ value_json.{value}.rung }}}}",
        }
        if rungs:
            topic = f"{device.root}/ha/set/{name}"
            cmps[f"{key}_rung"] = {"p": "select", **common, "cmd_t": topic, "ops": [AUTO, *ladder.rungs]}
        else:
            cmps[f"{key}_rung"] = {"p": "sensor", **common}
    return {
        "dev": {"ids": us, "name": device.device, "mf": "Flyball", "sw": __version__},
        "o": {"name": "flyball", "sw": __version__},
        "cmps": cmps,
        "stat_t": f"{device.root}/ha/state",
        "avty": [{"t": device.status, "val_tpl": _AVAILABLE}],
    }


def _sensor(us: str, key: str, name: str, value: str, **more: str) -> dict[str, str]:
    return {
        "p": "sensor",
        "uniq_id": f"{us}_{key}",
        "name": name,
        "stat_cla": "measurement",
        "val_tpl": f"{{{{ value_json.{value} }}}}",
        **more,
    }


def _key(name: str) -> str:
    """Home Assistant's ids have no dots; two ladders never share one."""
    return re.sub(r"[^A-Za-z0-9-]", lambda m: f"_{ord(m[0]):x}_", name)
