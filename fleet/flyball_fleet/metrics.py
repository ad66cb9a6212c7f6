"""The fleet's last state as Prometheus metrics, for devices that cannot be scraped.

fleet.db, Counters -> Exporter.collect -> text on /metrics

What a stale device last said is absent, never 0; that it is stale is said. Labels are device, ladder and rung, and
bounded: a ladder and a rung must stand in the device's birth, and a device has MOST_PAIRS of them in the life of the
server, after which they are called "other".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flyball.clock import Clock
from flyball.errors import StateError
from flyball_fleet import view
from flyball_fleet.counters import Counters
from flyball_fleet.presence import STALE_AFTER_S
from flyball_fleet.view import Row
from flyball_fleet.writer import Writer

log = logging.getLogger(__name__)

PREFIX = "flyball_fleet_"
MOST_PAIRS = 64  # ladders and rungs of one device
OTHER = "other"
RESULTS = ("stored", "duplicate", "outdated", "rejected", "ignored", "dropped")

# Of a device's record: field -> metric, help.
DEVICE: Mapping[str, tuple[str, str]] = {
    "power_w": ("device_power_watts", "Electrical power, of the widest scope that the device measures."),
    "energy_j": ("device_energy_joules", "Energy since the daemon's start."),
    "temperature_c": ("device_temperature_celsius", "Of the hottest zone."),
    "cpu_ratio": ("device_cpu_ratio", "Processor time in use, 0 to 1."),
    "load": ("device_load_ratio", "Load of the whole machine as its governor weighs it, 0 to 1."),
    "memory_available_b": ("device_memory_available_bytes", "Memory that can be had without swapping."),
    "frequency_hz": ("device_frequency_hertz", "Of the fastest clock."),
    "spool_b": ("device_spool_bytes", "What waits on the device's disk for the broker."),
    "uptime_s": ("device_uptime_seconds", "Of the daemon."),
}
LADDER: Mapping[str, tuple[str, str]] = {
    "p50_s": ("ladder_latency_p50_seconds", "Median latency of the active rung."),
    "p95_s": ("ladder_latency_p95_seconds", "95th percentile of the latency."),
    "p99_s": ("ladder_latency_p99_seconds", "99th percentile of the latency."),
    "rate_hz": ("ladder_rate_hertz", "Answers a second."),
    "errors": ("ladder_errors", "Errors since the record before."),
    "pending": ("ladder_pending", "Requests that wait."),
    "energy_per_inference_j": ("ladder_energy_per_inference_joules", "Energy of one answer."),
}


class Exporter(Collector):
    """Reads the file at every scrape, so that it shows what several servers of one host have stored together."""

    def __init__(
        self, db: Path, counters: Counters, writer: Writer, clock: Clock, stale_after_s: float = STALE_AFTER_S
    ) -> None:
        self._db = db
        self._counters = counters
        self._writer = writer
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._pairs: dict[str, set[tuple[str, str]]] = {}

    def collect(self) -> Iterable[Metric]:
        now = self._clock.wall_s()
        rows: list[Row] | None = None
        try:
            rows = view.devices([self._db], now, self._stale_after_s)
        except StateError as error:  # then what the server says of itself matters most
            log.error("fleet: metrics have no devices: %s", error)
        if rows is not None:
            yield from self._devices(rows, now)
            yield from self._ladders(rows)
            yield _gauge("server_devices", "Devices known.", [], [((), float(len(rows)))])
        readable = float(rows is not None)
        yield _gauge(
            "server_database_readable", "0 when the file cannot be read: no devices then.", [], [((), readable)]
        )
        yield from self._server()

    def _devices(self, rows: list[Row], now: float) -> Iterable[Metric]:
        heard: Callable[[Row], float | None] = lambda r: None if r.heard_at is None else max(0.0, now - r.heard_at)  # noqa: E731
        own: list[tuple[str, str, Callable[[Row], float | None]]] = [
            ("device_ready", "1 ready, 0 known not to be; absent when stale.", _ready),
            ("device_stale", "1 when nothing was heard of a device that did not say goodbye.", _stale),
            ("device_heard_age_seconds", "Since the last sign of life.", heard),
            ("device_alarms", "Alarms that are raised.", lambda r: float(len(r.alarms))),
            ("device_throttled", "1 while something slows the machine down.", _throttled),
            ("device_under_voltage", "1 while the supply's voltage is too low.", _under_voltage),
            ("device_gap_records", "Numbers that the device declared lost.", lambda r: float(r.gap_records)),
            ("device_missing_records", "Numbers neither received nor declared.", lambda r: float(r.missing_records)),
            ("device_orders_dropped", "Orders that the server kept no longer.", lambda r: float(r.orders_dropped)),
            ("device_results_dropped", "Results of orders that it kept no longer.", lambda r: float(r.results_dropped)),
        ]
        for name, text, value in own:
            yield _gauge(name, text, ["device"], (((r.device,), value(r)) for r in rows))
        for field, (name, text) in DEVICE.items():
            yield _gauge(name, text, ["device"], (((r.device,), _number(r.record.get(field))) for r in rows))

    def _ladders(self, rows: list[Row]) -> Iterable[Metric]:
        active = list(self._active(rows))
        labels = ["device", "ladder", "rung"]
        samples = (((r.device, ladder, rung), 1.0) for r, ladder, rung, _ in active)
        yield _gauge("ladder_rung", "1 for the rung that is active.", labels, samples)
        for field, (name, text) in LADDER.items():
            values = (
                ((r.device, ladder, rung), _number(r.record.get(f"{said}/{field}"))) for r, ladder, rung, said in active
            )
            yield _gauge(name, text, labels, values)

    def _active(self, rows: list[Row]) -> Iterable[tuple[Row, str, str, str]]:
        """Device, labels, and the ladder as its record names it; no labels twice, of which there may be one sample."""
        for row in rows:
            given = set()
            for said, active in _rungs(row):
                ladder, rung = self._labels(row.device, said, active)
                if (ladder, rung) not in given:
                    given.add((ladder, rung))
                    yield row, ladder, rung, said

    def _labels(self, device: str, ladder: str, rung: str) -> tuple[str, str]:
        pairs = self._pairs.setdefault(device, set())
        if (ladder, rung) not in pairs:
            if len(pairs) >= MOST_PAIRS:
                return OTHER, OTHER
            pairs.add((ladder, rung))
        return ladder, rung

    def _server(self) -> Iterable[Metric]:
        counts, writer = self._counters, self._writer
        messages = CounterMetricFamily(
            f"{PREFIX}server_messages", "Messages, by what became of them.", labels=["result"]
        )
        for result in RESULTS:
            messages.add_metric([result], counts.messages[result])
        yield messages
        plain: list[tuple[str, str, float]] = [
            ("server_records", "Records of telemetry and events stored.", counts.records),
            ("server_commits", "Commits to the disk.", writer.commits),
            (
                "server_write_failures",
                "Commits that failed; their messages stayed with the broker.",
                counts.write_failures,
            ),
            ("server_rebirths", "Births asked for.", counts.rebirths),
            ("server_pruned", "Rows removed because of their age or the size of the file.", writer.pruned),
        ]
        for name, text, value in plain:
            counter = CounterMetricFamily(PREFIX + name, text)
            counter.add_metric([], value)
            yield counter
        yield _gauge("server_connected", "1 while linked to the broker.", [], [((), float(counts.connected))])
        yield _gauge("server_database_bytes", "Pages in use of the file.", [], [((), float(writer.used_bytes))])


def listen(address: str, exporter: Exporter) -> Callable[[], None]:
    """Serves /metrics on ":9109" or "127.0.0.1:9109"; call the result to end it. Raises OSError, ValueError."""
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Described(exporter))
    server, thread = start_http_server(int(port), addr=host.strip("[]") or "0.0.0.0", registry=registry)  # noqa: S104

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end


class _Described(Collector):
    """Registering asks for names; a file that is not there yet must not matter then."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return self._exporter.collect()


def _gauge(
    name: str, text: str, labels: list[str], samples: Iterable[tuple[tuple[str, ...], float | None]]
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for key, value in samples:
        if value is not None:
            gauge.add_metric(key, value)
    return gauge


def _rungs(row: Row) -> Iterable[tuple[str, str]]:
    """Ladder and active rung, as far as the birth knows them."""
    for ladder in row.birth.ladders if row.birth is not None else ():
        rung = row.record.get(f"{ladder.name}/rung")
        if rung in {r.name for r in ladder.rungs}:
            yield ladder.name, str(rung)


def _ready(row: Row) -> float | None:
    return None if row.state in ("stale", "unknown") else float(row.state == "ready")


def _stale(row: Row) -> float:
    return float(row.state == "stale")


def _throttled(row: Row) -> float | None:
    causes = row.record.get("throttled")
    return None if not isinstance(causes, str) else float(bool(causes))


def _under_voltage(row: Row) -> float | None:
    causes = row.record.get("throttled")
    return None if not isinstance(causes, str) else float("under_voltage" in causes)


def _number(cell: Any) -> float | None:
    return float(cell) if isinstance(cell, int | float) else None
