"""The Prometheus page, read with Prometheus' own parser."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from served import World

from flyball.ports import UNITS, EnergyTotal, GovernorFigures, LadderTotals, Reading, SensorHealth, UplinkStatus
from flyball.serving.metrics import Metrics
from flyball.testing import FakeCatalog

TOTALS = LadderTotals(
    success=5,
    failure={"REJECTED": 2},
    executions=6,
    request_ns=5_000_000_000,
    queue_ns=1_500,
    pre_ns=2_000,
    run_ns=3_000,
    post_ns=4_000,
    answers_by_rung={"large": 4, "small": 1},
    switches={"large>small:latency": 2, ">large:start": 1},
    worker_restarts={"signal 11": 1},
    latency_buckets={0.1: 3, 2.5: 4, float("inf"): 5},
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(world: World) -> Samples:
    page, content_type = world.metrics().render("")
    assert content_type.startswith("text/plain")
    found: Samples = {}
    for family in parse(page.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "a sample stands twice"
            found[key] = sample.value
    return found


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def names(samples: Samples) -> set[str]:
    return {name for name, _ in samples}


def reading(quantity: str, name: str, value: float, unit: str, scope: str, sensor: str = "s") -> Reading:
    fields = {"quantity": quantity, "name": name, "value": value, "unit": unit, "scope": scope, "sensor": sensor}
    return msgspec.convert({**fields, "t_s": 1.0}, Reading)


@pytest.fixture
def counted(world: World) -> World:
    world.ladders[1].counted = TOTALS
    return world


def test_the_names_that_dashboards_for_triton_know(counted: World) -> None:
    samples = read(counted)
    echo = {"model": "echo", "version": "1"}
    expected = {
        "nv_inference_request_success": 5,
        "nv_inference_count": 5,
        "nv_inference_exec_count": 6,
        "nv_inference_pending_request_count": 0,
        "nv_inference_request_duration_us": 5_000_000,
        "nv_inference_queue_duration_us": 1.5,
        "nv_inference_compute_input_duration_us": 2,
        "nv_inference_compute_infer_duration_us": 3,
        "nv_inference_compute_output_duration_us": 4,
    }
    assert {name: samples[key(name, **echo)] for name in expected} == expected
    reasons = {r: samples[key("nv_inference_request_failure", **echo, reason=r)] for r in ("REJECTED", "BACKEND")}
    assert reasons == {"REJECTED": 2, "BACKEND": 0}


def test_rungs_switches_and_restarts(counted: World) -> None:
    samples = read(counted)
    assert samples[key("flyball_rung_active", model="echo", rung="large")] == 1
    assert samples[key("flyball_rung_active", model="echo", rung="small")] == 0
    assert samples[key("flyball_answers_total", model="echo", rung="small")] == 1
    switch = {"model": "echo", "from": "large", "to": "small", "reason": "latency"}
    assert samples[key("flyball_switches_total", **switch)] == 2
    assert samples[key("flyball_switches_total", **{**switch, "from": "", "to": "large", "reason": "start"})] == 1
    assert samples[key("flyball_worker_restarts_total", model="echo", cause="signal 11")] == 1


def test_the_latency_histogram(counted: World) -> None:
    samples = read(counted)
    echo = {"model": "echo", "version": "1"}
    buckets = {le: samples[key("flyball_latency_seconds_bucket", **echo, le=le)] for le in ("0.1", "2.5", "+Inf")}
    assert buckets == {"0.1": 3, "2.5": 4, "+Inf": 5}
    assert samples[key("flyball_latency_seconds_sum", **echo)] == 5.0
    assert samples[key("flyball_latency_seconds_count", **echo)] == 5


def test_no_data_is_absent_and_never_zero(world: World) -> None:
    found = names(read(world))
    assert not any(name.startswith(("nv_cpu_", "nv_gpu_", "flyball_power", "flyball_energy")) for name in found)
    assert not any(name.startswith(("flyball_joules", "flyball_temp", "flyball_sensor")) for name in found)
    assert not any(name.startswith(("flyball_uplink", "flyball_spool")) for name in found)
    assert "flyball_switches_total" not in found


def test_the_machine(world: World) -> None:
    world.readings.readings = [
        reading("cpu_utilization", "cpu", 0.25, "ratio", "machine"),
        reading("cpu_utilization", "cpu0", 0.99, "ratio", "chip"),
        reading("memory_total", "ram", 8e9, "B", "machine"),
        reading("memory_used", "ram", 2e9, "B", "machine"),
        reading("runnable", "machine", 5.0, "tasks", "machine"),
        reading("power", "VDD_IN", 7.5, "W", "board", "ina"),
        reading("power", "VDD_IN", 7.6, "W", "board", "other"),
        reading("temperature", 'zone "0"\n', 51.5, "C", "zone", "thermal"),
    ]
    samples = read(world)
    assert samples[key("nv_cpu_utilization")] == 0.25
    assert samples[key("nv_cpu_memory_total_bytes")] == 8e9
    assert samples[key("nv_cpu_memory_used_bytes")] == 2e9
    assert samples[key("flyball_runnable_tasks")] == 5
    assert samples[key("flyball_power_watts", rail="VDD_IN", scope="board", sensor="ina")] == 7.5
    assert samples[key("flyball_power_watts", rail="VDD_IN", scope="board", sensor="other")] == 7.6
    assert samples[key("flyball_temperature_celsius", zone='zone "0"\n', sensor="thermal")] == 51.5
    assert "nv_gpu_power_usage" not in names(samples)


def test_the_load_score_is_that_of_the_newest_readings_and_absent_when_unknown(world: World) -> None:
    world.readings.readings = [reading("cpu_utilization", "machine", 0.25, "ratio", "machine")]
    assert "flyball_load_score" not in names(read(world))
    page = Metrics(FakeCatalog(), world.readings, world.energy, load_score=lambda r: r[0].value * 2).render("")[0]
    assert "\nflyball_load_score 0.5\n" in page.decode()
    page = Metrics(FakeCatalog(), world.readings, world.energy, load_score=lambda _: None).render("")[0]
    assert "flyball_load_score" not in page.decode()


def test_energy(world: World) -> None:
    world.energy.total = EnergyTotal(joules=120.5, covered_s=30, scope="board", source="ina")
    world.energy.each = {("echo", "small"): 0.5}
    samples = read(world)
    assert samples[key("flyball_energy_joules_total", scope="board", source="ina")] == 120.5
    assert samples[key("flyball_energy_covered_seconds_total", scope="board", source="ina")] == 30
    assert samples[key("flyball_joules_per_inference", model="echo", rung="small", scope="board")] == 0.5
    assert key("flyball_joules_per_inference", model="echo", rung="large", scope="board") not in samples
    assert not {"flyball_idle_power_watts", "flyball_net_joules_per_inference"} & names(samples)
    world.energy.idle = 3.25
    samples = read(world)
    assert samples[key("flyball_idle_power_watts", scope="board", source="ina")] == 3.25
    assert samples[key("flyball_net_joules_per_inference", model="echo", rung="small", scope="board")] == 0.25


def test_every_other_quantity_has_its_metric(world: World) -> None:
    kept_elsewhere = {"energy", "cpu_utilization", "memory_available", "memory_total", "memory_used", "load_1m"}
    kept_elsewhere |= {"runnable"}
    quantities = [q for q in UNITS if q not in kept_elsewhere]
    before = names(read(world))
    for quantity in quantities:
        world.readings.readings = [reading(quantity, "x", 0.5, UNITS[quantity], "chip")]
        new = names(read(world)) - before
        assert len(new) == 1, quantity
        assert new.pop().startswith("flyball_")


def test_sensors(world: World) -> None:
    world.readings.sensors = [
        SensorHealth(sensor="good", state="ok", cost_s=0.002, reads=10),
        SensorHealth(sensor="bad", state="failed", reason="EIO", reads=10, failures=4),
        SensorHealth(sensor="none", state="unavailable"),
    ]
    samples = read(world)
    up = {dict(labels)["sensor"]: value for (name, labels), value in samples.items() if name == "flyball_sensor_up"}
    assert up == {"good": 1, "bad": 0}
    assert samples[key("flyball_sensor_read_seconds", sensor="good")] == 0.002
    assert key("flyball_sensor_read_seconds", sensor="bad") not in samples
    assert samples[key("flyball_sensor_failures_total", sensor="bad")] == 4
    states = {labels for (name, labels) in samples if name == "flyball_sensor_state"}
    assert {(dict(labels)["sensor"], dict(labels)["state"]) for labels in states} == {
        ("good", "ok"),
        ("bad", "failed"),
        ("none", "unavailable"),
    }


def test_the_governor(world: World) -> None:
    assert not any("decision" in name or "slow_down" in name or "_late_" in name for name in names(read(world)))
    world.governed = GovernorFigures(
        decisions={"echo": {"stay": 40, "down": 1}},
        predicted_late={"echo": {"large": 0.25, "small": 0.0}},
        slow_down={"echo": {"small": 0.86}},
        looks=41,
        deciding_s=0.004,
    )
    samples = read(world)
    assert samples[key("flyball_decisions_total", model="echo", action="stay")] == 40
    assert samples[key("flyball_decisions_total", model="echo", action="down")] == 1
    assert samples[key("flyball_rung_predicted_late_ratio", model="echo", rung="large")] == 0.25
    assert samples[key("flyball_rung_predicted_late_ratio", model="echo", rung="small")] == 0.0
    assert samples[key("flyball_slow_down_ratio", model="echo", rung="small")] == 0.86
    assert key("flyball_slow_down_ratio", model="echo", rung="large") not in samples
    assert samples[key("flyball_governor_decision_seconds_count")] == 41
    assert samples[key("flyball_governor_decision_seconds_sum")] == 0.004


def test_the_uplink(world: World) -> None:
    world.uplink = UplinkStatus(connected=False, broker="mqtt://b", spool_bytes=77)
    samples = read(world)
    assert samples[key("flyball_uplink_connected")] == 0
    assert samples[key("flyball_spool_bytes")] == 77
    assert "flyball_spool_records" not in names(samples)


def test_openmetrics_when_that_is_asked_for(counted: World) -> None:
    counted.energy.total = EnergyTotal(joules=1, covered_s=1, scope="estimated", source="model")
    page, content_type = counted.metrics().render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(page.decode())}
    assert families["flyball_latency_seconds"].type == "histogram"
    assert families["flyball_energy_joules"].type == "counter"


def test_no_ladders_at_all() -> None:
    assert names(read(World())) == {"flyball_build_info"}
