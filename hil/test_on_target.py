"""The five cases: the service starts, answers, measures, is reached over MQTT, and stops. In this order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from broker import Broker
from picture import png
from ping import ping
from readings import PLAUSIBLE, implausible, of_kind
from report import Report
from service import DEVICE, ProcessService, UnitService
from target import Facts
from targets import LocalTarget, SshTarget

Service = ProcessService | UnitService
Measured = Callable[[str, float | str], None]
MISSING = {"temperature": "temperature sensor", "power": "power sensor"}


@pytest.fixture(scope="module")
def running(service: Service) -> Service:
    """The started service; a failed start fails every case that needs it."""
    service.start()
    return service


def test_service_starts(service: Service, request: pytest.FixtureRequest, report: Report, measured: Measured) -> None:
    begun = time.monotonic()
    request.getfixturevalue("running")
    measured("start_s", round(time.monotonic() - begun, 3))
    report.versions["flyball"] = service.flyball("--version").checked().strip().removeprefix("flyball ")
    ladders = json.loads(service.flyball("ls", "--json").checked())
    assert ladders, "no ladder is in service"
    assert {ladder["state"] for ladder in ladders} <= {"ready", "degraded"}, ladders


def test_infer(running: Service, target: LocalTarget | SshTarget, measured: Measured) -> None:
    name = json.loads(running.flyball("ls", "--json").checked())[0]["name"]
    path = target.put(png(96, 96, seed=1), "picture.png")
    [answer] = json.loads(running.flyball("infer", name, path, "--json").checked())
    scores, labels = answer["outputs"]["scores"], answer["outputs"]["labels"]
    assert len(scores) == len(labels) > 1
    assert all(0.0 <= score <= 1.0 for score in scores)
    measured("rung", answer["rung"])
    measured("answer_ms", round(1000 * answer["total_s"], 3))


@pytest.mark.parametrize("kind", PLAUSIBLE)
def test_reading(
    kind: str, running: Service, metrics: Callable[[], str], facts: Facts, measured: Measured,
    wait_for: Callable[[Callable[[], object], float], object],
) -> None:  # fmt: skip
    wait_for(lambda: of_kind(metrics(), kind), 0.0 if kind in MISSING else 10.0)
    values = of_kind(metrics(), kind)
    if not values and kind in MISSING:
        expected = facts.has("thermal-zone") if kind == "temperature" else facts.has("power-sensor")
        assert not expected, f"the target has a {MISSING[kind]}, but no reading of it came"
        pytest.skip(f"the target has no {MISSING[kind]}")
    assert values, f"no {kind} reading came"
    assert not implausible(kind, values), f"expected {PLAUSIBLE[kind][1:]}"
    for name, value in values.items():
        measured(name, value)


def test_mqtt_ping(running: Service, broker: Broker | None, measured: Measured) -> None:
    if broker is None:
        pytest.skip("the target has no MQTT broker")
    took_s, states = ping(broker.port, f"flyball/v1/default/{DEVICE}", timeout_s=30.0)
    measured("ping_ms", round(1000 * took_s, 1))
    measured("states", " ".join(states))


def test_service_stops(running: Service, measured: Measured) -> None:
    begun = time.monotonic()
    assert running.stop() == ""
    measured("stop_s", round(time.monotonic() - begun, 3))
