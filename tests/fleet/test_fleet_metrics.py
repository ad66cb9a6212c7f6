"""What Prometheus sees, and that the dashboard and the alert rules speak of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_rig import birth, samples, status, telemetry
from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry

from flyball.uplink.record import LadderRecord, Record
from flyball_fleet import metrics, schema
from flyball_fleet.counters import Counters
from flyball_fleet.intake import read
from flyball_fleet.limits import Limits
from flyball_fleet.metrics import MOST_PAIRS, Exporter
from flyball_fleet.store import Store
from flyball_fleet.writer import Writer

OPS = Path(__file__).resolve().parents[2] / "docs/ops"


class StoppedClock:
    now = 1_000_000.0

    def monotonic_s(self) -> float:
        return 0.0

    def boot_s(self) -> float:
        return 0.0

    def wall_s(self) -> float:
        return self.now


class Page:
    def __init__(self, folder: Path) -> None:
        self.db = schema.open_writer(folder / "f.db")
        self.store = Store(self.db, Limits())
        self.clock = StoppedClock()
        writer = Writer(folder / "f.db", Limits(), self.clock, lambda _: None, lambda _: None)
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(Exporter(folder / "f.db", Counters(), writer, self.clock))

    def take(self, suffix: str, payload: bytes, device: str = "d1") -> None:
        arrival = read(f"flyball/v1/t/{device}/{suffix}", payload)
        self.store.apply(arrival, payload, False, self.clock.now)

    def text(self) -> str:
        return generate_latest(self.registry).decode()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    made = Page(tmp_path)
    made.take("status", status("ready", 1))
    made.take("birth", birth(1))
    yield made
    made.db.close()


def full_record() -> dict[str, list[object]]:
    """Every field that a device may tell of."""
    cells: dict[str, list[object]] = {
        name: [1.5] for name in Record.__struct_fields__ if name not in ("ladders", "power_scope")
    }
    cells |= {f"shapes/{name}": [0.5] for name in LadderRecord.__struct_fields__}
    return {**cells, "throttled": ["under_voltage"], "shapes/rung": ["big"], "shapes/state": ["ready"]}


def names(text: str) -> set[str]:
    return {re.split(r"[{ ]", line)[0] for line in text.splitlines() if not line.startswith("#")}


@pytest.mark.parametrize("file", ["grafana-fleet.json", "prometheus-alerts.yml"])
def test_every_metric_that_operations_name_exists(page: Page, file: str) -> None:
    page.take("t/main", telemetry(0, 1, **full_record()))
    text = (OPS / file).read_text()
    if file.endswith(".json"):
        panels = json.loads(text)["panels"]
        text = json.dumps([panels, json.loads(text)["templating"]])
        assert len({p["id"] for p in panels}) == len(panels)
    named = set(re.findall(r"flyball_fleet_\w+", text))
    assert len(named) >= 8
    assert named - names(page.text()) == set()


def test_every_field_of_the_exporter_is_one_that_devices_have() -> None:
    assert set(metrics.DEVICE) <= set(Record.__struct_fields__)
    assert set(metrics.LADDER) <= set(LadderRecord.__struct_fields__)


def test_what_was_not_measured_is_absent_and_not_zero(page: Page) -> None:
    page.take("t/main", telemetry(0, 2, power_w=[1.0, None], temperature_c=[40.0, 0.0]))
    text = page.text()
    assert samples(text, "flyball_fleet_device_power_watts") == {}
    assert samples(text, "flyball_fleet_device_throttled") == {}
    assert samples(text, "flyball_fleet_device_temperature_celsius") == {'{device="d1"}': 0.0}


@pytest.mark.parametrize("state", ["lost", "disconnected"])
def test_a_device_that_has_gone_has_no_figures(page: Page, state: str) -> None:
    page.take("t/main", telemetry(0, 1))
    assert samples(page.text(), "flyball_fleet_device_power_watts") == {'{device="d1"}': 3.0}
    page.take("status", status(state, 1))
    text = page.text()
    assert samples(text, "flyball_fleet_device_power_watts") == {}
    assert samples(text, "flyball_fleet_device_ready") == {'{device="d1"}': 0.0}
    assert samples(text, "flyball_fleet_device_stale") == {'{device="d1"}': 0.0}


def test_a_device_that_renames_its_rungs_does_not_fill_the_time_series(page: Page) -> None:
    seen = set()
    for i in range(3 * MOST_PAIRS):
        page.take("birth", birth(1, desc_version=i + 2, rungs=(f"rung{i}",)))
        page.take("t/main", telemetry(i, 1, **{"shapes/rung": [f"rung{i}"], "shapes/p95_s": [0.1]}))
        seen |= set(samples(page.text(), "flyball_fleet_ladder_rung"))
    assert len(seen) == MOST_PAIRS + 1
    assert '{device="d1",ladder="other",rung="other"}' in seen
