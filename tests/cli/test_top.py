"""The screen of `flyball top`, compared as it stands, and what the keys do to it."""

from __future__ import annotations

import html
import re

import msgspec
import pytest
from rich.text import Text
from top_sample import (
    DECISION,
    LADDERS,
    PICTURE,
    READINGS,
    STATUS,
    changed,
    frame,
    history,
    ladder,
    reading,
    rung,
    shown,
)

from flyball.cli.top import press
from flyball.cli.top_frame import KEPT, History, Sort, View, ladders
from flyball.cli.top_machine import fitted, size, trend
from flyball.cli.top_screen import screen
from flyball.cli.top_terminal import split_keys
from flyball.cli.top_watch import Order, told
from flyball.control_api import AUTO
from flyball.ports import EnergyTotal, Pin, Quantity, SensorHealth, SwitchReport, UplinkStatus

USUAL = """\
flyball 1.0.0  up 3.2 d  governor accuracy-first  line-3  Jetson Orin Nano
cpu      [||||||      ] 46 %              gpu      [|||||||||   ] 75 %
memory   [||||||||    ] 5.1/7.4 GiB
power    9.84 W VDD_IN (module)  ▇▇▇▇▇▇█████▇▇▇▇▇▇▇▇▇  2.41 MJ in 3.2 d
rails    VDD_CPU_GPU_CV 4.12 W  VDD_SOC 2.05 W
heat     cpu-thermal 71.3/80 °C  gpu-thermal 69.8 °C
clocks   cpu0 1.51/1.51 GHz  gpu 0.62 GHz
held by  over current since boot
uplink   connected  spool 12 (3.2 KiB)  queued 0  dropped 0  mqtts://broker.exa…
cooling  pwm-fan 66 %
load     1 min 2.31  cpu_some 12 %  memory_some 0 %
  ladder     rung           state     p50 ms  p95 ms trend          queue     /s
> defects    r112-int8      ready       10.0    12.5 ▇▆▆▇█▄▄▄▄▄▄▄▄▄     3   80.4
  faces      fp16       pin ready        7.5     9.4 ▇▆▆▇█▄▄▄▄▄▄▄▄▄     0    6.2
  gauges     -              failed         -       -                    0      -

defects 1  the governor chooses
stays on r112-int8: r224-fp32 would take 27 ms, limit 20 ms (4 s ago)
    rung           precision accuracy  p50 ms    memory J/answer state
> ○ r224-fp32      fp32        99.1 %    22.4 130.0 MiB    0.087 standby
  ● r112-int8      int8        97.8 %     6.1 130.0 MiB    0.041 active
    r64-int8       int8        93.1 %       -         -        - closed

↑↓ ladder  ←→ rung  p pin  u unpin  s sort: name  h help  q quit"""

NARROW = """\
flyball 1.0.0  up 3.2 d  governor accur…
cpu      [||||||      ] 46 %
gpu      [|||||||||   ] 75 %
power    9.84 W VDD_IN (module)  ▇▇▇▇▇▇…
held by  over current since boot
  ladder     rung        p95 ms queue
> defects    r112-int8     12.5     3
  faces      fp16           9.4     0
  gauges     -                -     0
defects 1  the governor chooses
stays on r112-int8: r224-fp32 would tak…
    rung            p50 ms state
> ○ r224-fp32         22.4 standby

p pin  u unpin  s sort  h help  q quit"""


def line(lines: list[str], label: str) -> str:
    found = [one for one in lines if one.startswith(label)]
    assert len(found) == 1, lines
    return found[0]


def test_the_usual_terminal() -> None:
    assert "\n".join(shown(frame())) == USUAL


def test_a_narrow_terminal() -> None:
    assert "\n".join(shown(frame(), 40, 15)) == NARROW


def test_a_wide_terminal_leaves_nothing_out() -> None:
    lines = shown(frame(), 160, 40)
    assert lines[1].count("[") == 3, "cpu, gpu and memory beside each other"
    assert line(lines, "uplink").endswith("mqtts://broker.example:8883")
    drawn = line(lines, "> defects").split()[6]
    assert drawn == trend(list(history().p95_s["defects"])), "the whole trend"
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("width", [1, 2, 9, 20, 39, 41, 79, 81, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 7, 11, 23, 25, 60])
def test_every_size_is_filled_and_none_is_exceeded(width: int, height: int) -> None:
    for of in (frame(), frame(view=View(help=True)), frame(lost="gone"), frame(changed(ladders=()))):
        lines = screen(of, width, height)
        assert len(lines) == height
        assert all(one.cell_len <= width for one in lines)


@pytest.mark.parametrize("height", range(14, 30))
def test_the_chosen_ladder_and_its_rung_are_always_in_sight(height: int) -> None:
    many = tuple(ladder(f"l{i:02}", *(rung(f"r{k}", "closed", "", 0.5, None) for k in range(12))) for i in range(40))
    lines = shown(frame(changed(ladders=many), View(ladder="l27", rung="r9")), 80, height)
    assert any(one.startswith("> l27 ") for one in lines), lines
    assert any(one.startswith(">   r9 ") for one in lines), lines


def test_what_slows_the_machine_down_is_the_last_to_go() -> None:
    hot = reading("throttled", "hw_thermal", 1.0, "gpu")
    lines = shown(frame(changed(readings=(*READINGS[:15], hot))), 80, 7)
    assert any(one.startswith("held by  hw thermal") for one in lines)


# ----------------------------------------------------------------------------------------------- what is not known


def test_what_is_not_known_is_a_dash_and_never_zero() -> None:
    empty = changed(readings=(), sensors=(), energy=None, uplink=None, pins=(), ladders=(ladder("x"),))
    lines = shown(frame(empty, View(), history=History(), decision=None))
    assert lines[1].split() == ["cpu", "-", "memory", "-"]
    assert [line(lines, label).split(maxsplit=1)[1] for label in ("heat", "clocks", "held by")] == ["-", "-", "by  -"]
    assert line(lines, "power") == "power    -  nothing measures or estimates power here"
    assert line(lines, "uplink") == "uplink   off"
    assert line(lines, "> x").split() == [">", "x", "-", "ready", "-", "-", "0", "-"]
    assert "no decision yet" in lines
    assert not re.search(r"\b0\.0", "\n".join(lines[1:]))


def test_a_reading_that_was_there_is_marked_when_its_sensor_fails() -> None:
    health = (
        SensorHealth(sensor="thermal", state="failed", reason="cpu-thermal: EIO"),
        SensorHealth(sensor="hwmon", state="stale", reason="no answer for 9 s"),
        SensorHealth(sensor="host", state="ok"),
        SensorHealth(sensor="jetson", state="ok", reason="VDD_CPU: EAGAIN"),
    )
    left = tuple(r for r in READINGS if r.sensor not in ("thermal", "hwmon", "clocks") and r.quantity != "memory_used")
    lines = shown(frame(changed(readings=left, sensors=health)), 100, 40)
    assert line(lines, "heat") == "heat     cpu-thermal failed  gpu-thermal failed"
    assert line(lines, "rails") == "rails    VDD_IN stale  VDD_CPU_GPU_CV stale  VDD_SOC stale"
    assert line(lines, "power").startswith("power    -  ")
    assert line(lines, "clocks") == "clocks   cpu0 -  gpu -"
    assert line(lines, "cpu").endswith("memory   -") or line(lines, "memory") == "memory   -"
    assert "sensor   thermal failed: cpu-thermal: EIO" in lines
    assert "sensor   jetson in part: VDD_CPU: EAGAIN" in lines
    assert "sensor   hwmon stale: no answer for 9 s" in lines


def test_a_daemon_that_is_gone() -> None:
    lines = screen(frame(lost="the daemon is not running", age_s=12.0), 80, 24)
    assert lines[0].plain.startswith("no answer for 12 s  line-3")
    assert lines[-2].plain == "the daemon is not running"
    assert all("dim" in str(span.style) for span in lines[3].spans[-1:]), "what it said last is not what is"
    assert lines[3].plain.startswith("power    9.84 W")


def test_no_total_of_power_where_none_is_known_to_be_one() -> None:
    lines = shown(
        frame(changed(readings=(reading("power", "A", 1.0, scope="rail"), reading("power", "B", 2.0, scope="rail"))))
    )
    assert line(lines, "power").startswith("power    -  no single one of these")
    assert line(lines, "rails").startswith("rails    A 1.00 W  B 2.00 W")


def test_an_estimate_says_that_it_is_one() -> None:
    guess = reading("power", "model", 4.0, "estimated", "estimated")
    lines = shown(frame(changed(readings=(msgspec.structs.replace(guess, uncertainty=0.6),))))
    assert line(lines, "power").startswith("power    4.00 W ±60 % model (estimated)")


# ------------------------------------------------------------------------------------------------------ the figures


@pytest.mark.parametrize(
    ("quantity", "name", "value", "expected"),
    [
        ("throttled", "under_voltage", 0.0, "nothing"),
        ("throttled", "under_voltage", 1.0, "under voltage"),
        ("throttled", "under_voltage_since_boot", 1.0, "under voltage since boot"),
        ("throttled", "under_voltage_since_boot", 0.0, "nothing"),
        ("alarm", "apex_0", 1.0, "alarm apex 0"),
        ("over_current", "oc1", 0.25, "over-current oc1 0.25/s"),
        ("over_current", "oc1", 0.0, "nothing"),
    ],
)
def test_what_holds_the_machine_back(quantity: Quantity, name: str, value: float, expected: str) -> None:
    lines = shown(frame(changed(readings=(reading(quantity, name, value),)), history=History()))
    assert line(lines, "held by") == f"held by  {expected}"


@pytest.mark.parametrize(("value", "style"), [(60.0, "bold"), (70.0, "bold yellow"), (80.0, "bold red")])
def test_heat_near_its_lowest_limit_is_coloured(value: float, style: str) -> None:
    limits = (("cpu/passive", 80.0), ("cpu/critical", 105.0), ("cpu2/passive", 50.0))
    readings = (reading("temperature", "cpu", value), *(reading("temperature_limit", n, v) for n, v in limits))
    of = frame(changed(readings=readings), history=History())
    found = next(one for one in screen(of, 80, 24) if one.plain.startswith("heat"))
    assert found.plain.rstrip() == f"heat     cpu {value:.1f}/80 °C"
    assert style in {str(span.style) for span in found.spans}


def test_the_hottest_are_shown_where_there_is_no_room_for_all() -> None:
    zones = tuple(reading("temperature", f"zone-number-{i}", 40.0 + (i * 7) % 20) for i in range(20))
    heat = line(shown(frame(changed(readings=zones), history=History())), "heat")
    assert "59.0" in heat
    assert heat.endswith("  +18")
    assert "58.0" in heat


def test_memory_is_held_against_what_limits_it() -> None:
    mib = float(1 << 20)
    readings = (
        reading("memory_used", "cgroup", 300 * mib), reading("memory_limit", "cgroup_max", 400 * mib),
        reading("memory_limit", "cgroup_high", 350 * mib), reading("memory_used", "gpu0", 2048 * mib),
        reading("utilization", "gpu0", 0.5),
    )  # fmt: skip
    text = "\n".join(shown(frame(changed(readings=readings), history=History())))
    assert "cgroup   [||||||||||  ] 300/350 MiB" in text
    assert "gpu0 mem 2.0 GiB" in text


@pytest.mark.parametrize(
    ("points", "drawn"),
    [([], ""), ([None, None], "  "), ([0.0, 0.0], "▁▁"), ([7.0, None, 1.0, 0.0, 3.5], "█ ▂▁▅"), ([-1.0, 1.0], "▁█")],
)
def test_a_trend_has_a_gap_where_there_is_no_figure(points: list[float | None], drawn: str) -> None:
    assert trend(points) == drawn


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0, "0 B"), (2048, "2.0 KiB"), (3 << 29, "1.5 GiB")])
def test_sizes(value: float | None, text: str) -> None:
    assert size(value) == text


def test_the_history_is_bounded_and_forgets_ladders_that_are_gone() -> None:
    found = History()
    for _ in range(KEPT + 5):
        found.add(STATUS)
    found.add_gap()
    assert len(found.power_w) == KEPT
    assert list(found.power_w)[-2:] == [9.84, None]
    assert list(found.p95_s["defects"])[-2:] == [0.0125, None]
    assert list(found.p95_s["gauges"])[-2:] == [None, None]
    found.add(changed(ladders=LADDERS[:1]))
    assert set(found.p95_s) == {"faces"}
    for i in range(400):
        found.add(changed(readings=(reading("temperature", f"a{i}", 1.0), reading("temperature", f"b{i}", 1.0))))
    assert len(found.seen) == 500


def test_the_uplink_says_why_it_is_not_connected() -> None:
    broken = UplinkStatus(connected=False, broker="mqtt://b", error="timed out", dropped=2, commands="denied")
    assert line(shown(frame(changed(uplink=broken)), 120), "uplink") == (
        "uplink   not connected  spool - (-)  queued 0  dropped 2  commands denied  timed out"
    )


def test_energy_is_told_in_a_unit_that_fits() -> None:
    for joules, text in ((12.0, "12.0 J"), (12345.0, "12.35 kJ"), (2.5e7, "25.00 MJ")):
        total = EnergyTotal(joules=joules, covered_s=60.0, scope="module", source="VDD_IN")
        assert line(shown(frame(changed(energy=total))), "power").endswith(f"{text} in 60 s")


def test_the_trend_gives_way_to_the_energy() -> None:
    guess = reading("power", "estimated", 12.0, "estimated", "estimated")
    now = changed(
        readings=(msgspec.structs.replace(guess, uncertainty=0.6),),
        energy=EnergyTotal(joules=123456.0, covered_s=5400.0, scope="estimated", source="estimated"),
    )
    power = line(shown(frame(now)), "power")
    assert re.fullmatch(r"power    12\.00 W ±60 % estimated \(estimated\)  \S{13}  123\.46 kJ in 90 min", power), power


# -------------------------------------------------------------------------------------------------- hostile names


HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202egnol\u200b\u0301\ud800\x00\t日本[bold]"
HOSTILE_KINDS: tuple[Quantity, ...] = ("temperature", "frequency", "utilization", "alarm", "memory_used", "voltage")


def test_names_give_the_terminal_no_orders() -> None:
    views = (ladder(HOSTILE, rung(HOSTILE, "failed", HOSTILE, 0.5, None, HOSTILE), version=HOSTILE, error=HOSTILE),)
    of = frame(
        changed(
            version=HOSTILE, device=HOSTILE, board=HOSTILE + "b", mode=HOSTILE, ladders=views,
            readings=tuple(reading(q, HOSTILE, 1.0, HOSTILE) for q in HOSTILE_KINDS),
            sensors=(SensorHealth(sensor=HOSTILE, state="failed", reason=HOSTILE),),
            uplink=UplinkStatus(connected=False, broker=HOSTILE, error=HOSTILE),
            pins=(Pin(ladder=HOSTILE, rung=HOSTILE, until_s=None),),
        ),
        View(message=HOSTILE),
    )  # fmt: skip
    for width, height in ((80, 24), (40, 12), (250, 60)):
        lines = screen(of, width, height)
        assert all(one.plain.isprintable() for one in lines)
        assert all(one.cell_len <= width for one in lines)
    text = "\n".join(one.plain for one in screen(of, 250, 60))
    assert "\ufffd[2J\ufffd]0;owned" in text, "shown, not carried out"
    assert "日本[bold]" in text, "neither markup nor letters of two cells are touched"


def test_a_cut_counts_cells_and_keeps_styles() -> None:
    text = Text.assemble(("日本\x1b語", "red"), ("abc", "green"))
    assert fitted(text, 20).plain == "日本\ufffd語abc"
    assert fitted(text, 4).cell_len <= 4
    assert fitted(text, 20, right=True).cell_len == 20
    assert {str(s.style) for s in fitted(text, 20).spans} == {"red", "green"}
    assert text.plain.startswith("日本\x1b"), "the original stays"


# --------------------------------------------------------------------------------------------------------- the keys


def pressed(view: View, *keys: str) -> tuple[View, list[Order]]:
    orders = []
    for key in keys:
        view, order = press(STATUS, view, key)
        orders += [] if order is None else [order]
    return view, orders


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", ["defects", "faces", "gauges"]),
        ("latency", ["defects", "faces", "gauges"]),
        ("queue", ["defects", "faces", "gauges"]),
    ],
)
def test_orders_of_the_ladders(sort: Sort, expected: list[str]) -> None:
    assert [v.status.name for v in ladders(STATUS, sort)] == expected
    slow = (
        *LADDERS,
        ladder("aaa", rung("r", "active", "", 0.5, 1.0), p95_ms=1.0),
        ladder("zzz", rung("r", "active", "", 0.5, 1.0), p95_ms=99.0, pending=2),
    )
    first = {"name": "aaa", "latency": "zzz", "queue": "defects"}
    last = {"name": "zzz", "latency": "gauges", "queue": "gauges"}
    names = [v.status.name for v in ladders(changed(ladders=slow), sort)]
    assert (names[0], names[-1]) == (first[sort], last[sort])


def test_arrows_choose_and_stop_at_the_ends() -> None:
    assert pressed(View(), "up")[0].ladder == "defects"
    assert pressed(View(), "down", "down", "down", "down")[0].ladder == "gauges"
    assert pressed(View(), "right")[0].rung == "r64-int8", "from the active one"
    assert pressed(View(), "left", "left", "left")[0].rung == "r224-fp32"
    assert pressed(View(rung="r64-int8", ladder="defects"), "up")[0].rung == "r64-int8", "nothing has moved"
    assert pressed(View(rung="r64-int8", ladder="defects"), "down")[0].rung == "", "another ladder's rungs are others"


def test_p_and_u_are_orders_about_what_is_chosen() -> None:
    assert pressed(View(), "left", "p")[1] == [Order(ladder="defects", rung="r224-fp32")]
    assert pressed(View(), "down", "u")[1] == [Order(ladder="faces", rung=AUTO)]
    assert press(changed(ladders=()), View(), "p") == (View(), None)


def test_in_help_no_key_is_an_order() -> None:
    view, orders = pressed(View(), "h", "p")
    assert (view.help, orders) == (False, [])


def test_s_goes_round_and_a_key_clears_the_message() -> None:
    sorts = [pressed(View(), *["s"] * n)[0].sort for n in range(4)]
    assert sorts == ["name", "latency", "queue", "name"]
    assert pressed(View(message="old", alarm=True), "x")[0] == View()


def test_a_chosen_ladder_that_went_is_not_missed() -> None:
    lines = shown(frame(changed(ladders=LADDERS[:1]), View(ladder="defects", rung="r112-int8")))
    assert any(one.startswith("> faces") for one in lines)
    assert any("held on fp16 for 9 min more" in one for one in lines)


@pytest.mark.parametrize(
    ("data", "keys", "rest"),
    [
        (b"\x1b[A\x1bOBq", ["up", "down", "q"], b""),
        (b"p\x1b", ["p"], b"\x1b"),
        (b"\x1b[", [], b"\x1b["),
        (b"\x1b[1;5C+-", ["\x1b[1;5C", "right", "left"], b""),
        (b"\x1bq", ["q"], b""),
        (b"\xff?\x0c", ["ÿ", "h", "redraw"], b""),
        (b"\x1b" * 3, [], b"\x1b"),
    ],
)
def test_keys_come_whole_or_in_pieces(data: bytes, keys: list[str], rest: bytes) -> None:
    assert split_keys(data) == (keys, rest)
    together, kept = [], b""
    for i in range(len(data)):
        found, kept = split_keys(kept + data[i : i + 1])
        together += found
    assert (together, kept) == (keys, rest)


@pytest.mark.parametrize(
    ("rung_name", "report", "expected"),
    [
        (AUTO, None, "the governor chooses"),
        ("b", None, "held on b, which was active already"),
        ("b", ("a", "b"), "a -> b in 120 ms"),
        ("b", (None, "b"), "none -> b in 120 ms"),
        ("b", ("a", "c"), "a -> c in 120 ms; a limit of temperature or memory keeps it off b for now"),
    ],
)
def test_what_an_order_did(rung_name: str, report: tuple[str | None, str] | None, expected: str) -> None:
    done = report and SwitchReport(ladder="x", source=report[0], target=report[1], open_s=0.12, warm_s=0, gap_s=0)
    assert told(Order(ladder="x", rung=rung_name), done or None) == expected


def test_a_decision_about_another_ladder_is_not_shown() -> None:
    lines = shown(frame(view=View(ladder="faces")))
    assert "no decision yet" in lines
    assert DECISION.reason not in "\n".join(lines)


def test_the_picture_in_the_documents_is_what_is_drawn() -> None:
    rows = re.findall(r"<text [^>]*clip-path=[^>]*>(.*?)</text>", PICTURE.read_text())
    text = html.unescape("".join(rows)).replace("\N{NO-BREAK SPACE}", " ")
    for drawn in shown(frame(), 100, 27):
        for word in drawn.split():
            assert word in text, f"{word}: draw it anew: .venv/bin/python tests/cli/top_sample.py"
    assert "http" not in re.sub(r"https://www\.textualize\.io|http://www\.w3\.org/2000/svg", "", PICTURE.read_text())
