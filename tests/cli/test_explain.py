"""`flyball explain`: the newest decision in words, the rungs, and what was changed lately."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from scripted_daemon import ScriptedDaemon, decided, flyball, ladder, status

from flyball.cli.explain import changed, figures, next_better
from flyball.ports import Candidate, Decision, Pin

BIG = Candidate(
    rung="r224-fp32", accuracy=0.93, predicted_p95_s=0.0312, predicted_late=0.12, predicted_power_w=6.5,
    predicted_temperature_c=71.25, ruled_out_by="latency: 12% predicted later than 20.0 ms, 5% allowed",
)  # fmt: skip
HERE = Candidate(rung="r112", accuracy=0.88, predicted_p95_s=0.012, predicted_late=0.004)
GONE = Candidate(rung="r80-int8", accuracy=0.8, predicted_p95_s=None, ruled_out_by="it cannot run on this machine")
SEEN = {"latency_p95_s": 0.0121, "late": 0.004, "arrivals_per_s": 20.0, "limit_deadline_s": 0.02, "power_w": 5.5}


def decision(action: str, source: str, target: str, reason: str, ago_s: float, **more: Any) -> Decision:
    facts = {"acted": action != "stay", **more}
    return Decision(
        ladder="defects", t_s=time.monotonic() - ago_s, wall_s=time.time() - ago_s, action=action, source=source,  # type: ignore[arg-type]
        target=target, reason=reason, **facts,
    )  # fmt: skip


WHY = f"r224-fp32 is next: {BIG.ruled_out_by}"


def old() -> Decision:
    return decision("up", "r112", "r224-fp32", "safe in the last 3 periods", 4000.0)


def down() -> Decision:
    outcome = {"latency_p95_s": 0.011, "late": 0.0, "power_w": 5.25}
    return decision(
        "down", "r224-fp32", "r112", "latency p95 32.0 ms", 300.0, binding="latency", unforeseen=True, outcome=outcome
    )


def stay(reason: str = WHY) -> Decision:
    rungs = (BIG, HERE, GONE)
    return decision("stay", "r112", "r112", reason, 1.0, binding="latency", inputs=SEEN, candidates=rungs)


def daemon(path: Path, *decisions: Decision, pins: tuple[Pin, ...] = ()) -> ScriptedDaemon:
    here = ladder(rungs=("r112", "r224-fp32"))
    script = {"/control/status": status(here, pins=pins), "/control/decisions": decided(*decisions)}
    number = len(list(path.iterdir()))  # of this test
    return ScriptedDaemon(path / f"{number}.sock", script)


def explain(path: Path, *arguments: str, decisions: tuple[Decision, ...] | None = None, width: str = "80") -> str:
    with daemon(path, *((old(), down(), stay()) if decisions is None else decisions)) as served:
        done = flyball("explain", "defects", *arguments, "--socket", served.path, environment={"COLUMNS": width})
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_the_newest_decision_comes_first_in_words(tmp_path: Path) -> None:
    told = explain(tmp_path, width="200")
    first, *rest = told.splitlines()
    assert first == "defects is on r112 since 5 min; the governor's mode is accuracy-first"
    assert "  why:    latency p95 32.0 ms" in rest
    assert f"  now:    stays: {WHY}" in rest
    assert any(line.startswith("  seen:   p95 12.1 ms, 0.4 % late, 20.0 requests/s, 5.50 W (") for line in rest)
    assert "  limits: answers within 20.0 ms" in rest
    assert "  next:" not in told, "the reason has said it"
    told = explain(tmp_path, decisions=(stay("the last change was 2 s ago"),), width="200")
    assert f"  next:   r224-fp32 would be better; {BIG.ruled_out_by}" in told


def test_every_rung_with_what_is_predicted_and_what_rules_it_out(tmp_path: Path) -> None:
    rows = {line.split()[0]: line.split() for line in explain(tmp_path).splitlines() if line}
    assert rows["r224-fp32"] == ["r224-fp32", "93.0", "%", "31.2", "12.0", "%", "6.50", "W", "71.2", "°C", "latency"]
    assert rows["●"] == ["●", "r112", "88.0", "%", "12.0", "0.4", "%", "-", "-"]
    assert rows["r80-int8"] == ["r80-int8", "80.0", "%", "-", "-", "-", "-", "cannot", "be", "had"]
    assert rows["r80-int8:"] == ["r80-int8:", "it", "cannot", "run", "on", "this", "machine"]


def test_it_fits_eighty_columns(tmp_path: Path) -> None:
    told = explain(tmp_path, decisions=(old(), down(), stay("a limit that " * 20 + "ends")))
    assert max(map(len, told.splitlines())) <= 80
    assert "ends" in told
    assert "\n          " in told, "further lines are indented"


def test_changes_say_when_why_and_what_came_of_them(tmp_path: Path) -> None:
    told = explain(tmp_path, "--changes", width="200").splitlines()
    assert told[0] == "changes of defects in the last 10 min, the newest first"
    assert told[1].endswith("  r224-fp32 -> r112  latency  (5 min ago)")
    assert told[2:] == [
        "    why:  latency p95 32.0 ms (it was predicted to hold)",
        "    then: p95 11.0 ms, 0.0 % late, 5.25 W",
    ]


def test_the_time_asked_for_decides_which_changes_are_told(tmp_path: Path) -> None:
    assert "r112 -> r224-fp32" not in explain(tmp_path, "--changes", "--since", "10m")
    assert "r112 -> r224-fp32" in explain(tmp_path, "--changes", "--since", "2h")
    assert "defects: no changes in the last 90 s; the last one was 5 min ago" in explain(tmp_path, "--since", "90s")
    alone = explain(tmp_path, decisions=(stay(),))
    assert alone.splitlines()[-1] == "defects: no changes in the last 10 min"


@pytest.mark.parametrize("since", ["10", "abc", "-5m", "5 fortnights", ""])
def test_durations(tmp_path: Path, since: str) -> None:
    done = flyball("explain", "defects", f"--since={since}", "--socket", tmp_path / "none.sock")
    if since == "10":
        assert "the daemon is not running" in done.stderr, "seconds"
    else:
        assert done.returncode == 2
        assert "expected a duration such as 30s, 10m or 1.5h" in done.stderr


def test_json_has_exact_figures(tmp_path: Path) -> None:
    data = json.loads(explain(tmp_path, "--json"))
    assert (data["ladder"], data["mode"], data["active"], data["pin"]) == ("defects", "accuracy-first", "r112", None)
    assert data["last"]["candidates"][0]["predicted_late"] == 0.12
    assert [c["target"] for c in data["changes"]] == ["r112"]
    assert data["changes"][0]["outcome"]["late"] == 0.0


def test_a_pin_is_told(tmp_path: Path) -> None:
    pin = Pin(ladder="defects", rung="r112", until_s=time.monotonic() + 599, force=True)
    with daemon(tmp_path, stay(), pins=(pin,)) as served:
        told = flyball("explain", "defects", "--socket", served.path).stdout
    assert "  pin:    held on r112 for 10 min more, against the limits of temperature and memory too" in told


def test_before_the_first_decision_and_without_such_a_ladder(tmp_path: Path) -> None:
    assert "  now:    nothing has been decided yet" in explain(tmp_path, decisions=())
    with ScriptedDaemon(tmp_path / "t.sock", {}) as served:
        done = flyball("explain", "nothing", "--socket", served.path)
    assert (done.returncode, done.stderr) == (1, "error: no such ladder\n")


def test_a_wish_is_told_once_and_a_failure_every_time() -> None:
    wish = decision("down", "a", "b", "too slow", 9, acted=False)
    rest = decision("stay", "a", "a", "fits", 8)
    failed = decision("down", "a", "b", "too slow", 7, acted=False, error="no memory")
    assert changed([wish, wish, rest, wish, failed, failed, rest]) == [wish, wish, failed, failed]


def test_what_stands_in_the_way_of_the_next_better_rung() -> None:
    assert next_better(stay(), "r112", "accuracy-first") == BIG
    assert next_better(stay(), "r112", "energy-first") is None
    assert next_better(stay(), "r224-fp32", "accuracy-first") is None
    dwell = stay("the last change was 2 s ago")
    assert next_better(dwell, "r112", "accuracy-first") == BIG
    assert next_better(dwell, None, "accuracy-first") is None


def test_what_is_not_known_is_left_out() -> None:
    assert figures({}) == ""
    assert figures({"temperature_c": 0.0, "work_mean_s": 1.0}) == "0.0 °C"
