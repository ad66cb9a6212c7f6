"""One record of telemetry, from the ports."""

from collections.abc import Sequence

import msgspec

from flyball.ports import EnergyTotal, LatencyWindow, Quantity, Reading, SensorHealth, Stats
from flyball.testing import NO_TOTALS, FakeCatalog, FakeClock, FakeLadder
from flyball.uplink.record import Record, Recorder, columns


class Sampler:
    def __init__(self, *readings: Reading) -> None:
        self.readings = readings

    def latest(self) -> Sequence[Reading]:
        return self.readings

    def window(self, quantity: Quantity, seconds: float, name: str | None = None) -> Stats | None:
        return None

    def health(self) -> Sequence[SensorHealth]:
        return ()


class Meter:
    def energy(self) -> EnergyTotal | None:
        return EnergyTotal(joules=12.5, covered_s=10, scope="estimated", source="model")

    def joules_per_inference(self, ladder: str, rung: str) -> float | None:
        return None

    def net_joules_per_inference(self, ladder: str, rung: str) -> float | None:
        return None

    def idle_w(self) -> float | None:
        return None


def reading(quantity: Quantity, value: float, **more: object) -> Reading:
    return msgspec.convert(
        {"quantity": quantity, "name": "x", "value": value, "unit": "", "scope": "machine", "sensor": "s", "t_s": 0.0}
        | more,
        Reading,
    )


def test_nothing_measured_is_null_everywhere() -> None:
    record = Recorder(FakeCatalog(FakeLadder()), Sampler(), None, FakeClock(), 1.0)()
    for name in (
        "power_w",
        "power_scope",
        "energy_j",
        "temperature_c",
        "cpu_ratio",
        "memory_available_b",
        "load_1m",
        "load",
    ):
        assert getattr(record, name) is None
    ladder = record.ladders["fake"]
    assert (ladder.rung, ladder.p50_s, ladder.rate_hz, ladder.errors) == ("large", None, None, None)


def test_a_real_zero_stays_a_zero() -> None:
    sampler = Sampler(reading("cpu_utilization", 0.0), reading("power", 0.0))
    record = Recorder(FakeCatalog(), sampler, None, FakeClock(), 1.0)()
    assert (record.cpu_ratio, record.power_w) == (0.0, 0.0)


def test_the_widest_power_and_the_hottest_zone() -> None:
    sampler = Sampler(
        reading("power", 2.0, scope="rail"),
        reading("power", 9.0, scope="board"),
        reading("power", 7.0, scope="estimated"),
        reading("temperature", 41.0, scope="zone"),
        reading("temperature", 66.25, scope="zone"),
    )
    record = Recorder(FakeCatalog(), sampler, Meter(), FakeClock(), 1.0)()
    assert (record.power_w, record.power_scope, record.temperature_c, record.energy_j) == (9.0, "board", 66.2, 12.5)
    assert record.temperature_coolest_c == 41.0


def test_the_load_is_what_the_daemon_reckons_of_the_newest_readings() -> None:
    sampler = Sampler(reading("cpu_utilization", 0.5), reading("cpu_utilization", 0.25))
    made = Recorder(FakeCatalog(), sampler, None, FakeClock(), 1.0, lambda found: sum(r.value for r in found) / 3)
    assert made().load == 0.25
    sampler.readings = ()
    assert made().load == 0.0  # nothing to do is a figure
    assert Recorder(FakeCatalog(), sampler, None, FakeClock(), 1.0, lambda found: None)().load is None


def test_rates_are_over_the_time_since_the_last_record() -> None:
    clock, ladder = FakeClock(), FakeLadder()
    recorder = Recorder(FakeCatalog(ladder), Sampler(), None, clock, 1.0)
    recorder()
    clock.advance(2.0)
    ladder.counted = msgspec.structs.replace(NO_TOTALS, success=30, failure={"REJECTED": 1, "BACKEND": 2})
    ladder.latency = LatencyWindow(rung="large", seconds=1, count=30, p50_s=0.01, p95_s=0.02, p99_s=0.0300000004)
    second = recorder().ladders["fake"]
    assert (second.rate_hz, second.errors, second.p50_s, second.p99_s) == (15.0, 3, 0.01, 0.03)


def test_a_ladder_loaded_anew_has_no_rate_at_first() -> None:
    clock, ladder = FakeClock(), FakeLadder()
    ladder.counted = msgspec.structs.replace(NO_TOTALS, success=30)
    recorder = Recorder(FakeCatalog(ladder), Sampler(), None, clock, 1.0)
    recorder()
    clock.advance(1.0)
    ladder.counted = NO_TOTALS
    assert recorder().ladders["fake"].rate_hz is None


def test_columns_have_a_cell_per_record_also_for_a_ladder_that_came_later() -> None:
    clock = FakeClock()
    empty = Recorder(FakeCatalog(), Sampler(), None, clock, 1.0)()
    full = Recorder(FakeCatalog(FakeLadder("a"), FakeLadder("b.c")), Sampler(), None, clock, 1.0)()
    table = columns([empty, full, empty])
    assert {len(column) for column in table.values()} == {3}
    assert table["a/rung"] == (None, "large", None)
    assert table["b.c/pending"] == (None, 0, None)
    assert "ladders" not in table
    assert set(table) >= set(Record.__struct_fields__) - {"ladders"}
