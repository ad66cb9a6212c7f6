"""The machine's part of `flyball top`: utilization, memory, power, heat, clocks, what holds it back, the uplink.

Frame -> (rank, line of styled text). Adds no rails up and invents nothing: what was there and is missing now is shown
as "failed", "stale" or "-".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from flyball.cli.terminal import duration
from flyball.cli.top_frame import Frame, Key, key
from flyball.ports import Quantity, Reading, UplinkStatus
from flyball.sensing.total import explain_no_total, total_power, without_superseded

_BARS = "▁▂▃▄▅▆▇█"
_LABEL = 9  # cells of what stands before the figures
_GAUGE = 38  # cells of a bar with its label and figure: two of them in 80 columns
_BAR = 12
_TREND, _TREND_LEAST = 20, 3  # points of the machine's power
_NEAR_C = 10.0  # so far below its limit a temperature is worth a colour
_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
_HELD: tuple[Quantity, ...] = ("throttled", "alarm", "over_current")
# Shown where a sensor gives them; the rest is shown always. (rank, label, quantities with format and factor)
_FURTHER: tuple[tuple[int, str, tuple[tuple[Quantity, str, float], ...]], ...] = (
    (7, "cooling", (("cooling", "{:.0f} %", 100), ("fan", "{:.0f} %", 100))),
    (8, "load", (("load_1m", "{:.2f}", 1), ("pressure", "{:.0f} %", 100))),
    (9, "supply", (("voltage", "{:.2f} V", 1), ("current", "{:.2f} A", 1))),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The readings by their keys, None for those that are missing now, and how their sensors are."""

    readings: Mapping[Key, Reading | None]
    states: Mapping[str, str]

    def of(self, *quantities: Quantity) -> list[tuple[Key, Reading | None]]:
        return [item for wanted in quantities for item in self.readings.items() if item[0][0] == wanted]

    def absent(self, which: Key) -> tuple[str, str]:
        """Why a reading is missing, in a word, and its style."""
        state = self.states.get(which[2])
        return (state, "red") if state in ("failed", "stale") else ("-", "yellow")

    def limit(self, quantity: Quantity, name: str, joint: str) -> float | None:
        """The lowest of those that are called NAME, or NAME, joint and more."""
        there = [r for _, r in self.of(quantity) if r is not None]
        return min((r.value for r in there if r.name == name or r.name.startswith(name + joint)), default=None)


Item = tuple[float, Text]  # what it weighs where there is no room for all, and what is shown


def machine(frame: Frame, width: int) -> list[tuple[int, Text]]:
    """(rank, line) from the top down; where there is no room, the highest rank is left out first."""
    now = frame.status
    gone = dict.fromkeys(k for k in frame.history.seen if k not in set(map(key, now.readings)))
    there = {key(r): r for r in without_superseded(now.readings)}
    found = Found(readings={**there, **gone}, states={h.sensor: h.state for h in now.sensors})
    total = total_power(now.readings)
    rails = [_item(found, *item, "{:.2f} W") for item in found.of("power") if item[1] is None or item[1] != total]
    lines = [(2, line) for line in _gauges(found, width)]
    lines.append((1, _power(frame, total, width)))
    lines += [(5, _flow("rails", rails, width))] if rails else []
    lines.append((3, _flow("heat", [_heat(found, *item) for item in found.of("temperature")], width)))
    lines.append((6, _flow("clocks", [_clock(found, *item) for item in found.of("frequency")], width)))
    lines.append((0, _flow("held by", _held_by(found), width)))
    lines.append((4, _uplink(now.uplink)))
    for rank, label, kinds in _FURTHER:
        items = [_item(found, *item, form, factor) for kind, form, factor in kinds for item in found.of(kind)]
        lines += [(rank, _flow(label, items, width))] if items else []
    for health in now.sensors:
        if health.state in ("failed", "stale"):
            lines.append((3, _labelled("sensor").append(f"{health.sensor} {health.state}: {health.reason}", "red")))
        elif health.state == "ok" and health.reason:
            lines.append((5, _labelled("sensor").append(f"{health.sensor} in part: {health.reason}", "yellow")))
    return lines


def fitted(text: Text, width: int, *, right: bool = False, pad: bool = False) -> Text:
    """A copy in which every character is printable and takes one or two cells, cut to `width` cells."""
    line = text.copy()
    if not (text.plain.isascii() and text.plain.isprintable()):
        # A character for a character, so that the styles stay in their places.
        line.plain = "".join(c if c.isprintable() and cell_len(c) else "\N{REPLACEMENT CHARACTER}" for c in text.plain)
    line.truncate(max(0, width), overflow="ellipsis")
    if right:
        line.pad_left(max(0, width - line.cell_len))
    elif pad:
        line.pad_right(max(0, width - line.cell_len))
    return line


def trend(points: Sequence[float | None]) -> str:
    """A column for each point, from 0 to the highest of them; a gap where there is none."""
    top = max((p for p in points if p is not None), default=0.0)
    last = len(_BARS) - 1
    return "".join(" " if p is None else _BARS[round(max(0.0, p) / top * last) if top > 0 else 0] for p in points)


def size(value: float | None) -> str:
    if value is None:
        return "-"
    for unit, factor in _UNITS:
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} B"


def _of(used: float, most: float) -> str:
    """Both in the larger one's unit."""
    figure, unit = size(most).split()
    part = used / dict(_UNITS).get(unit, 1)
    return f"{part:.1f}/{figure} {unit}" if len(figure) < 5 else f"{part:.0f}/{float(figure):.0f} {unit}"


def _labelled(label: str) -> Text:
    return Text.assemble((f"{label:<{_LABEL}}", "dim"))


def _item(found: Found, which: Key, reading: Reading | None, form: str, factor: float = 1) -> Item:
    if reading is None:
        return float("inf"), Text.assemble(f"{which[1]} ", found.absent(which))
    name = "1 min" if which[0] == "load_1m" else which[1]
    return reading.value, Text.assemble(f"{name} ", (form.format(reading.value * factor), "bold"))


def _flow(label: str, items: Sequence[Item], width: int) -> Text:
    """In one line. What does not fit is counted: "+3"."""
    texts = [fitted(text, width - _LABEL) for _, text in items]
    kept = list(range(len(items)))
    line = _labelled(label).append_text(Text("  ").join(texts) if texts else Text("-"))
    while line.cell_len > width and len(kept) > 1:
        kept.remove(min(kept, key=lambda i: (items[i][0], -i)))
        line = _labelled(label).append_text(Text("  ").join([texts[i] for i in kept]))
        line.append(f"  +{len(items) - len(kept)}", "dim")
    return line


def _heat(found: Found, which: Key, reading: Reading | None) -> Item:
    limit_c = found.limit("temperature_limit", which[1], "/")
    if reading is None or limit_c is None:
        return _item(found, which, reading, "{:.1f} °C")
    left_c = limit_c - reading.value
    style = "bold red" if left_c <= 0 else "bold yellow" if left_c <= _NEAR_C else "bold"
    return reading.value, Text.assemble(f"{which[1]} ", (f"{reading.value:.1f}", style), f"/{limit_c:.0f} °C")


def _clock(found: Found, which: Key, reading: Reading | None) -> Item:
    limit_hz = found.limit("frequency_limit", which[1], "/")
    if reading is None or limit_hz is None:
        return _item(found, which, reading, "{:.2f} GHz", 1e-9)
    ghz = f"{reading.value / 1e9:.2f}"
    return reading.value, Text.assemble(f"{which[1]} ", (ghz, "bold"), f"/{limit_hz / 1e9:.2f} GHz")


def _power(frame: Frame, total: Reading | None, width: int) -> Text:
    """The trend gives way to the energy, where there is room for that at all."""
    line, energy = _labelled("power"), frame.status.energy
    if total is None:
        return line.append("-  ").append(explain_no_total(frame.status.readings), "dim")
    sure = "" if total.uncertainty is None else f" ±{total.uncertainty * 100:.0f} %"
    line.append(f"{total.value:.2f} W", "bold").append(f"{sure} {total.name} ({total.scope})  ")
    end = "" if energy is None else f"  {_energy(energy.joules)} in {duration(energy.covered_s)}"
    room = width - line.cell_len - cell_len(end)
    points = list(frame.history.power_w)[-(min(room, _TREND) if room >= _TREND_LEAST else _TREND) :]
    return line.append(trend(points), "cyan").append(end)


def _energy(joules: float) -> str:
    for unit, factor in (("MJ", 1e6), ("kJ", 1e3)):
        if joules >= factor:
            return f"{joules / factor:.2f} {unit}"
    return f"{joules:.1f} J"


def _held_by(found: Found) -> list[Item]:
    """Throttling, alarms and over-currents; "nothing" only where a sensor says so."""
    items: list[Item] = []
    readings = found.of(*_HELD)
    for which, reading in readings:
        name = which[1].replace("_", " ")
        if reading is None:
            items.append((1, Text.assemble(f"{name} ", found.absent(which))))
        elif reading.value and name.endswith("since boot"):
            items.append((0, Text(name, "yellow")))
        elif reading.value:
            words = {"alarm": f"alarm {name}", "over_current": f"over-current {name} {reading.value:.2g}/s"}
            items.append((2, Text(words.get(which[0], name), "bold red")))
    return items or ([(0, Text("nothing", "green"))] if readings else [])


def _uplink(uplink: UplinkStatus | None) -> Text:
    line = _labelled("uplink")
    if uplink is None:
        return line.append("off")
    records = "-" if uplink.spool_records is None else uplink.spool_records
    line.append(*(("connected", "green") if uplink.connected else ("not connected", "red")))
    line.append(f"  spool {records} ({size(uplink.spool_bytes)})  queued {uplink.queued}")
    line.append(f"  dropped {uplink.dropped}", "red" if uplink.dropped else "")
    if uplink.commands == "denied":
        line.append("  commands denied", "red")
    if uplink.error and not uplink.connected:
        return line.append(f"  {uplink.error}", "red")
    return line.append(f"  {uplink.broker}", "dim")


def _gauges(found: Found, width: int) -> list[Text]:
    """Bars, as many beside each other as there is room for."""
    bars = [_gauge(found, "cpu", *item, 1.0) for item in found.of("cpu_utilization")] or [_unknown("cpu")]
    bars += [_gauge(found, item[0][1], *item, 1.0) for item in found.of("utilization")]
    busy = {which[1] for which, _ in found.of("utilization")}
    for which, reading in found.of("memory_used"):
        most = found.limit("memory_total", which[1], "/") or found.limit("memory_limit", which[1], "_")
        label = "memory" if which[1] == "machine" else f"{which[1]} mem" if which[1] in busy else which[1]
        bars.append(_gauge(found, label, which, reading, most))
    bars += [] if found.of("memory_used") else [_unknown("memory")]
    beside = max(1, (width + 4) // (_GAUGE + 4))
    return [Text("    ").join(bars[i : i + beside]) for i in range(0, len(bars), beside)]


def _unknown(label: str) -> Text:
    return fitted(_labelled(label).append("-"), _GAUGE, pad=True)


def _gauge(found: Found, label: str, which: Key, reading: Reading | None, most: float | None) -> Text:
    """A ratio, or bytes, against `most`; without one, the figure alone."""
    line = fitted(Text(label, "dim"), _LABEL - 1, pad=True).append(" ")
    if reading is None:
        line.append(*found.absent(which))
    elif not most:
        line.append(size(reading.value), "bold")
    else:
        share = min(1.0, max(0.0, reading.value / most))
        style = "green" if share < 0.7 else "yellow" if share < 0.9 else "red"
        line.append("[").append(f"{'|' * round(share * _BAR):<{_BAR}}", style).append("] ")
        line.append(f"{share * 100:.0f} %" if which[0] != "memory_used" else _of(reading.value, most), "bold")
    return fitted(line, _GAUGE, pad=True)
