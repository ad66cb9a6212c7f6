"""The Prometheus page: the one module that knows prometheus_client.

GET /metrics -> totals, readings, health as they are now -> families -> text.  Nothing is kept between scrapes.

What was not measured is absent, never 0. Names that dashboards for Triton know (nv_*) are there where a figure is
exactly that; they are untyped, because Triton's counters lack the suffix _total that the library gives counters.
nv_gpu_power_usage is left out: on a Jetson no rail feeds the GPU alone, and nvml's figure is flyball_power_watts.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from flyball import __version__
from flyball.ports import (
    Catalog,
    EnergyMeter,
    GovernorFigures,
    LadderStatus,
    LadderTotals,
    Quantity,
    Reading,
    Readings,
    UplinkStatus,
)

_MODEL = ("model", "version")
_REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


class _Seen(NamedTuple):
    """One ladder at the time of the scrape."""

    labels: tuple[str, str]
    status: LadderStatus
    totals: LadderTotals


# Quantity -> metric, help, what the reading's name is called.
_SENSED: dict[Quantity, tuple[str, str, str]] = {
    "temperature": ("flyball_temperature_celsius", "Temperature of a zone.", "zone"),
    "temperature_limit": ("flyball_temperature_limit_celsius", "A trip point, as zone/trip.", "trip"),
    "frequency": ("flyball_frequency_hertz", "Clock rate.", "device"),
    "frequency_limit": ("flyball_frequency_limit_hertz", "The highest clock rate that is allowed now.", "device"),
    "utilization": ("flyball_utilization_ratio", "Busy share of a device (0 to 1).", "device"),
    "cpu_steal": (
        "flyball_cpu_steal_ratio",
        "Share of the processors' time that a hypervisor gave to others (0 to 1).",
        "device",
    ),
    "voltage": ("flyball_voltage_volts", "Voltage.", "rail"),
    "current": ("flyball_current_amperes", "Current, or what a supply may give.", "rail"),
    "fan": ("flyball_fan_ratio", "Drive of a fan (0 to 1).", "fan"),
    "cooling": ("flyball_cooling_ratio", "State of a cooling device (0 to 1).", "device"),
    "throttled": ("flyball_throttled", "1 while the cause holds.", "cause"),
    "alarm": ("flyball_alarm", "1 while the device or the monitor says so.", "name"),
    "over_current": ("flyball_over_current_per_second", "Over-current events a second.", "name"),
    "pressure": ("flyball_pressure_ratio", "Share of the last 10 s that tasks waited (PSI).", "resource"),
    "memory_limit": ("flyball_memory_limit_bytes", "Limit of the control group.", "limit"),
}


class Metrics:
    """Renders the page; implements http.Exposition. `uplink` is None when there is none; `load_score` makes one figure
    of the newest readings, None when they do not suffice; `governor` tells what it has decided and what it expects."""

    def __init__(
        self,
        catalog: Catalog,
        readings: Readings,
        energy: EnergyMeter,
        uplink: Callable[[], UplinkStatus] | None = None,
        load_score: Callable[[Sequence[Reading]], float | None] = lambda _: None,
        governor: Callable[[], GovernorFigures] = GovernorFigures,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(catalog, readings, energy, uplink, load_score, governor))

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type, in the format that the Accept header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Collector(Collector):
    def __init__(
        self,
        catalog: Catalog,
        readings: Readings,
        energy: EnergyMeter,
        uplink: Callable[[], UplinkStatus] | None,
        load_score: Callable[[Sequence[Reading]], float | None],
        governor: Callable[[], GovernorFigures],
    ) -> None:
        self._load_score = load_score
        self._governor = governor
        self._catalog = catalog
        self._readings = readings
        self._energy = energy
        self._uplink = uplink

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the hardware."""
        return ()

    def collect(self) -> Iterator[Metric]:
        seen = [_Seen((x.name, x.version), x.status(), x.totals()) for x in self._catalog.ladders()]
        build = InfoMetricFamily("flyball_build", "The daemon's version.")
        build.add_metric((), {"version": __version__, "python": platform.python_version()})
        yield build
        yield from _with_samples(_inferences(seen))
        yield from _with_samples(_rungs(seen))
        yield from _with_samples(_shortcuts(seen))
        yield from _with_samples(_governor(self._governor()))
        yield from _with_samples(self._machine())
        yield from _with_samples(self._energies(seen))
        yield from _with_samples(self._sensors())
        if self._uplink is not None:
            yield from _with_samples(_uplink(self._uplink()))

    def _machine(self) -> Iterator[Metric]:
        latest = self._readings.latest()
        whole: tuple[tuple[str, str, Quantity], ...] = (
            ("nv_cpu_utilization", "Share of the processors' time that is used (0 to 1).", "cpu_utilization"),
            ("nv_cpu_memory_total_bytes", "Memory of the machine.", "memory_total"),
            ("nv_cpu_memory_used_bytes", "Memory of the machine in use.", "memory_used"),
            ("flyball_runnable_tasks", "Tasks that ran or were ready to, at the moment of the read.", "runnable"),
        )
        for name, words, quantity in whole:
            family = GaugeMetricFamily(name, words)
            for reading in [r for r in latest if r.quantity == quantity and r.scope == "machine"][:1]:
                family.add_metric((), reading.value)
            yield family
        load = GaugeMetricFamily("flyball_load_score", "Load of the whole machine in one figure (0 to 1).")
        score = self._load_score(latest)
        if score is not None:
            load.add_metric((), score)
        yield load
        # The sensor stands among the labels because two sensors may use one name for a rail or a zone.
        power = GaugeMetricFamily(
            "flyball_power_watts", "Power; `scope` tells what it covers.", labels=("rail", "scope", "sensor")
        )
        others = {
            q: GaugeMetricFamily(name, words, labels=(label, "sensor")) for q, (name, words, label) in _SENSED.items()
        }
        for reading in latest:
            if reading.quantity == "power":
                power.add_metric((reading.name, reading.scope, reading.sensor), reading.value)
            elif reading.quantity in others:
                others[reading.quantity].add_metric((reading.name, reading.sensor), reading.value)
        yield power
        yield from others.values()

    def _energies(self, seen: Sequence[_Seen]) -> Iterator[Metric]:
        labels = ("scope", "source")
        joules = CounterMetricFamily(
            "flyball_energy_joules", "Energy since start; `scope` estimated: of a model.", labels=labels
        )
        covered = CounterMetricFamily(
            "flyball_energy_covered_seconds", "Time that the energy covers: gaps are left out.", labels=labels
        )
        idle = GaugeMetricFamily(
            "flyball_idle_power_watts", "Power with the ladders open and nothing to do.", labels=labels
        )
        total = self._energy.energy()
        idle_w = self._energy.idle_w()
        if total is not None and idle_w is not None:
            idle.add_metric((total.scope, total.source), idle_w)
        if total is not None:
            joules.add_metric((total.scope, total.source), total.joules)
            covered.add_metric((total.scope, total.source), total.covered_s)
        of_rung = ("model", "rung", "scope")
        each = GaugeMetricFamily(
            "flyball_joules_per_inference",
            "Gross energy of one answer of this rung; ladders that run at once share it by their busy time.",
            labels=of_rung,
        )
        net = GaugeMetricFamily(
            "flyball_net_joules_per_inference",
            "The same less what idling takes; absent until the machine was seen idle.",
            labels=of_rung,
        )
        for ladder in seen:
            for rung in ladder.status.rungs:
                of = (ladder.status.name, rung.name, "" if total is None else total.scope)
                net_j = self._energy.net_joules_per_inference(ladder.status.name, rung.name)
                if net_j is not None:
                    net.add_metric(of, net_j)
                spent_j = self._energy.joules_per_inference(ladder.status.name, rung.name)
                if spent_j is not None:
                    each.add_metric(of, spent_j)
        yield from (joules, covered, idle, each, net)

    def _sensors(self) -> Iterator[Metric]:
        label = ("sensor",)
        works = GaugeMetricFamily(
            "flyball_sensor_up", "1: the sensor's last read was good; absent hardware is left out.", labels=label
        )
        state = GaugeMetricFamily(
            "flyball_sensor_state",
            "1 for the state that the sensor is in: ok, unavailable (no such hardware), failed, stale.",
            labels=("sensor", "state"),
        )
        cost = GaugeMetricFamily("flyball_sensor_read_seconds", "How long the last read took.", labels=label)
        reads = CounterMetricFamily("flyball_sensor_reads", "Reads tried.", labels=label)
        failures = CounterMetricFamily("flyball_sensor_failures", "Reads that failed.", labels=label)
        for health in self._readings.health():
            state.add_metric((health.sensor, health.state), 1.0)
            if health.state == "unavailable":
                continue
            works.add_metric((health.sensor,), float(health.state == "ok"))
            reads.add_metric((health.sensor,), health.reads)
            failures.add_metric((health.sensor,), health.failures)
            if health.cost_s is not None:
                cost.add_metric((health.sensor,), health.cost_s)
        yield from (works, state, cost, reads, failures)


def _with_samples(families: Iterable[Metric]) -> Iterator[Metric]:
    """Without the families that have nothing to say."""
    return (family for family in families if family.samples)


def _inferences(seen: Sequence[_Seen]) -> Iterator[Metric]:
    figures: tuple[tuple[str, str, Callable[[LadderTotals], float]], ...] = (
        ("nv_inference_request_success", "Requests answered.", lambda t: t.success),
        (
            "nv_inference_count",
            "Inferences done: none for an answer from the cache, two for an escalated request.",
            lambda t: sum(t.answers_by_rung.values()),
        ),
        ("nv_inference_exec_count", "Executions of a rung, retries included.", lambda t: t.executions),
        ("nv_inference_request_duration_us", "Time of answered requests, summed.", lambda t: t.request_ns / 1e3),
        ("nv_inference_queue_duration_us", "Time waited, summed.", lambda t: t.queue_ns / 1e3),
        ("nv_inference_compute_input_duration_us", "Time of `pre` steps, summed.", lambda t: t.pre_ns / 1e3),
        ("nv_inference_compute_infer_duration_us", "Time of the models, summed.", lambda t: t.run_ns / 1e3),
        ("nv_inference_compute_output_duration_us", "Time of `post` steps, summed.", lambda t: t.post_ns / 1e3),
    )
    for name, words, figure in figures:
        family = UnknownMetricFamily(name, words, labels=_MODEL)
        for ladder in seen:
            family.add_metric(ladder.labels, figure(ladder.totals))
        yield family
    failures = UnknownMetricFamily(
        "nv_inference_request_failure", "Requests not answered, by reason.", labels=(*_MODEL, "reason")
    )
    pending = GaugeMetricFamily(
        "nv_inference_pending_request_count", "Requests waiting or being answered.", labels=_MODEL
    )
    latency = HistogramMetricFamily("flyball_latency_seconds", "Time of answered requests.", labels=_MODEL)
    for ladder in seen:
        for reason in _REASONS:  # a reason that never happened was counted, and is 0
            failures.add_metric((*ladder.labels, reason), ladder.totals.failure.get(reason, 0))
        pending.add_metric(ladder.labels, ladder.status.pending)
        latency.add_metric(ladder.labels, _buckets(ladder.totals), ladder.totals.request_ns / 1e9)
    yield from (failures, pending, latency)


def _buckets(totals: LadderTotals) -> list[tuple[str, float]]:
    finite = sorted((bound, count) for bound, count in totals.latency_buckets.items() if bound != float("inf"))
    return [*((str(bound), float(count)) for bound, count in finite), ("+Inf", float(totals.success))]


def _rungs(seen: Sequence[_Seen]) -> Iterator[Metric]:
    active = GaugeMetricFamily("flyball_rung_active", "1: this rung answers now.", labels=("model", "rung"))
    answers = CounterMetricFamily("flyball_answers", "Requests answered by this rung.", labels=("model", "rung"))
    switches = CounterMetricFamily("flyball_switches", "Changes of rung.", labels=("model", "from", "to", "reason"))
    restarts = CounterMetricFamily("flyball_worker_restarts", "Workers started again.", labels=("model", "cause"))
    for _, status, totals in seen:
        for rung in status.rungs:
            active.add_metric((status.name, rung.name), float(rung.name == status.active))
        for name, count in totals.answers_by_rung.items():
            answers.add_metric((status.name, name), count)
        for key, count in totals.switches.items():
            source, _, rest = key.partition(">")
            target, _, reason = rest.partition(":")
            switches.add_metric((status.name, source, target, reason), count)
        for cause, count in totals.worker_restarts.items():
            restarts.add_metric((status.name, cause), count)
    yield from (active, answers, switches, restarts)


def _shortcuts(seen: Sequence[_Seen]) -> Iterator[Metric]:
    """The answer cache (the first two are Triton's names) and the cascade, of the ladders that have one."""
    for name, words, key in (
        ("nv_cache_num_hits_per_model", "Requests answered from the cache.", "hits"),
        ("nv_cache_num_misses_per_model", "Requests that the cache did not know.", "misses"),
        ("flyball_cache_shared_total", "Requests answered by an identical one in flight.", "shared"),
        ("flyball_cache_evicted_total", "Answers that had to make room.", "evicted"),
        ("flyball_cache_expired_total", "Answers that were too old.", "expired"),
        ("flyball_cache_entries", "Answers kept.", "entries"),
        ("flyball_cache_bytes", "Memory of the answers kept.", "bytes"),
    ):
        family = UnknownMetricFamily(name, words, labels=_MODEL)
        for ladder in seen:
            if ladder.totals.cache:
                family.add_metric(ladder.labels, ladder.totals.cache[key])
        yield family
    cascade = CounterMetricFamily(
        "flyball_cascade", "Requests through the cascade, by what became of them.", labels=(*_MODEL, "outcome")
    )
    for ladder in seen:
        for outcome, count in ladder.totals.cascade.items():
            cascade.add_metric((*ladder.labels, outcome), count)
    yield cascade


def _governor(figures: GovernorFigures) -> Iterator[Metric]:
    decisions = CounterMetricFamily(
        "flyball_decisions", "What the governor decided, stays included.", labels=("model", "action")
    )
    late = GaugeMetricFamily(
        "flyball_rung_predicted_late_ratio",
        "Share of this rung's answers that are expected to miss the deadline (0 to 1).",
        labels=("model", "rung"),
    )
    slow = GaugeMetricFamily(
        "flyball_slow_down_ratio",
        "Times its profiled work that this rung is expected to take now; only of rungs that have run.",
        labels=("model", "rung"),
    )
    for ladder, counts in figures.decisions.items():
        for action, count in counts.items():
            decisions.add_metric((ladder, action), count)
    for family, of_ladders in ((late, figures.predicted_late), (slow, figures.slow_down)):
        for ladder, of_rungs in of_ladders.items():
            for rung, value in of_rungs.items():
                family.add_metric((ladder, rung), value)
    cost = SummaryMetricFamily("flyball_governor_decision_seconds", "Time to decide for all ladders once.")
    if figures.looks:
        cost.add_metric((), figures.looks, figures.deciding_s)
    yield from (decisions, late, slow, cost)


def _uplink(status: UplinkStatus) -> Iterator[Metric]:
    connected = GaugeMetricFamily("flyball_uplink_connected", "1: connected to the broker.")
    connected.add_metric((), float(status.connected))
    yield connected
    for name, words, value in (
        ("flyball_spool_bytes", "What waits for the broker.", status.spool_bytes),
        ("flyball_spool_records", "Records that wait for the broker.", status.spool_records),
    ):
        family = GaugeMetricFamily(name, words)
        if value is not None:
            family.add_metric((), value)
        yield family
