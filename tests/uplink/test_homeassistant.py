"""Home Assistant's side: one discovery message, plain states, rungs chosen by the way of every order."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from device_side import linked, until
from fleet_side import Fleet
from test_handlers import Wheel

from flyball.errors import MessageError, StateError
from flyball.ports import LatencyWindow, Reading
from flyball.testing import FakeLadder
from flyball.uplink.handlers import rung
from flyball.uplink.homeassistant import DELAY_S, HomeAssistant, LadderView, View, discovery, view
from flyball.uplink.outbox import Publication
from flyball.uplink.topics import Device
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio

DEVICE = Device("acme", "edge-1")
VIEW = View(
    power_w=4.5, temperature_c=51.0, throttled=False,
    ladders={"image.net": LadderView(rung="big", p95_ms=12.5, rungs=("big", "small"))},
)  # fmt: skip


class Bench:
    def __init__(self, rungs: bool = True) -> None:
        self.view = VIEW
        self.sent: list[Publication] = []
        self.ordered: list[tuple[Any, ...]] = []
        self.broken = False
        self.home = HomeAssistant(
            device=DEVICE, prefix="homeassistant", period_s=0.01, view=lambda: self.view, rungs=rungs,
            order=self._order, publish=self.sent.append, delay_s=lambda: 0.05,
        )  # fmt: skip

    async def _order(self, *order: Any) -> None:
        if self.broken:
            raise StateError("disk full")
        self.ordered.append(order)

    def topics(self) -> list[str]:
        return [p.topic for p in self.sent]


CONFIG = "homeassistant/device/edge-1/config"
STATE = "flyball/v1/acme/edge-1/ha/state"


def test_discovery_is_what_home_assistant_asks_for() -> None:
    found = discovery(DEVICE, VIEW, True)
    assert set(found) == {"dev", "o", "cmps", "stat_t", "avty"}
    assert found["dev"]["ids"] == "flyball_acme_edge-1"
    assert found["o"]["name"]
    assert found["stat_t"] == STATE
    assert found["avty"][0]["t"] == DEVICE.status
    parts = found["cmps"]
    assert {k: v["p"] for k, v in parts.items()} == {
        "power": "sensor", "temperature": "sensor", "throttled": "binary_sensor",
        "image_2e_net_p95": "sensor", "image_2e_net_rung": "select",
    }  # fmt: skip
    ids = [v["uniq_id"] for v in parts.values()]
    assert len(set(ids)) == len(ids)
    assert all(set(i) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") for i in ids)
    select = parts["image_2e_net_rung"]
    assert (select["ops"], select["cmd_t"]) == (["auto", "big", "small"], "flyball/v1/acme/edge-1/ha/set/image.net")
    assert "cmd_t" not in discovery(DEVICE, VIEW, False)["cmps"]["image_2e_net_rung"]
    json.dumps(found)


def test_names_that_differ_in_a_dot_have_ids_of_their_own() -> None:
    ladders = {name: LadderView(rung=None, p95_ms=None) for name in ("a.b", "a_b", "a-b", "a_2e_b")}
    assert len(discovery(DEVICE, View(ladders=ladders), True)["cmps"]) == 3 + 2 * len(ladders)


def test_the_view_leaves_out_what_was_not_measured() -> None:
    class Sensors:
        def __init__(self, *found: Reading) -> None:
            self._found = found

        def latest(self) -> tuple[Reading, ...]:
            return self._found

        def window(self, *_: object) -> None:
            return None

        def health(self) -> tuple[()]:
            return ()

    def reading(quantity: Any, value: float, scope: Any = "soc") -> Reading:
        return Reading(quantity=quantity, name="x", value=value, unit="", scope=scope, sensor="s", t_s=0)

    class Shelf:
        def __init__(self, *ladders: FakeLadder) -> None:
            self._ladders = ladders

        def get(self, name: str, version: str | None = None) -> Any:
            raise NotImplementedError

        def ladders(self) -> tuple[FakeLadder, ...]:
            return self._ladders

    assert view(Shelf(), Sensors()) == View()
    found = view(
        Shelf(FakeLadder("a")),
        Sensors(
            reading("power", 3.0), reading("power", 9.0, "wall"), reading("temperature", 50.0),
            reading("temperature", 61.0), reading("throttled", 0.0), reading("throttled", 1.0),
        ),
    )  # fmt: skip
    assert (found.power_w, found.temperature_c, found.throttled) == (9.0, 61.0, True)
    assert found.ladders["a"].p95_ms is None or isinstance(FakeLadder("a").window(1), LatencyWindow)


async def test_it_is_announced_retained_and_again_only_when_it_has_changed() -> None:
    bench = Bench()
    bench.home.announce()
    bench.home.tell()
    assert bench.topics() == [CONFIG, STATE, STATE]
    assert all(p.retain and not p.deflated for p in bench.sent)
    assert json.loads(bench.sent[-1].payload)["ladders"]["image.net"]["p95_ms"] == 12.5
    bench.view = View()
    bench.home.tell()
    assert bench.topics()[3:] == [CONFIG, STATE]


async def test_online_is_answered_after_a_delay_and_once() -> None:
    bench = Bench()
    for payload, retain in ((b"offline", False), (b"online", True), (b"\xff", False)):
        assert await bench.home.take("homeassistant/status", payload, retain)
    await asyncio.sleep(0.1)
    assert bench.sent == []
    for _ in range(5):
        await bench.home.take("homeassistant/status", b"online", False)
    assert bench.sent == []
    await until(lambda: bench.topics() == [CONFIG, STATE])
    await asyncio.sleep(0.1)
    assert len(bench.sent) == 2
    assert DELAY_S[0] < DELAY_S[1]


async def test_a_chosen_rung_becomes_an_order_with_an_id_of_its_own() -> None:
    bench = Bench()
    topic = "flyball/v1/acme/edge-1/ha/set/image.net"
    assert await bench.home.take(topic, b"small", False)
    assert await bench.home.take(topic, b"small", False)
    (kind, one, payload, ttl_s, _), (_, two, *_) = bench.ordered
    assert (kind, json.loads(payload), ttl_s) == ("rung", {"args": {"ladder": "image.net", "rung": "small"}}, 60)
    assert one != two
    assert not await bench.home.take("flyball/v1/acme/edge-1/cmd/ping/1/req", b"", False)


@pytest.mark.parametrize("payload", [b"", b"x" * 65, b"\xff" * 70])
async def test_what_is_no_rung_is_refused(payload: bytes) -> None:
    bench = Bench()
    with pytest.raises(MessageError, match="ha/set"):
        await bench.home.take("flyball/v1/acme/edge-1/ha/set/a", payload, False)
    with pytest.raises(MessageError, match="retained"):
        await bench.home.take("flyball/v1/acme/edge-1/ha/set/a", b"small", True)
    bench.broken = True
    with pytest.raises(MessageError, match="disk full"):
        await bench.home.take("flyball/v1/acme/edge-1/ha/set/a", b"small", False)
    assert bench.ordered == []


async def test_a_view_that_fails_does_not_end_it() -> None:
    bench = Bench()
    good = bench.home._view

    def bad() -> View:
        raise RuntimeError("no view")

    bench.home._view = bad
    task = asyncio.create_task(bench.home.run())
    await asyncio.sleep(0.05)
    bench.home._view = good
    await until(lambda: STATE in bench.topics())
    task.cancel()


async def test_over_a_real_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    wheel = Wheel()
    settings = {"homeassistant": True, "homeassistant_s": 1.0}
    with Fleet(mosquitto.port, "homeassistant") as house, Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, handlers=[rung(wheel)], home=lambda: VIEW, **settings):
            found = await house.waits("device/edge-1/config")
            assert found["cmps"]["power"]["val_tpl"] == "{{ value_json.power_w }}"
            assert (await fleet.waits("ha/state"))["power_w"] == 4.5
            await fleet.waits("status", lambda d: d["state"] == "ready")
            fleet.send("ha/set/imagenet", b"small")
            await until(lambda: ("pin", "imagenet", "small", None) in wheel.told)
            fleet.send("ha/set/imagenet", b"x" * 100)
            assert "ha/set/imagenet" in (await fleet.waits("e/command_ignored"))["message"]
