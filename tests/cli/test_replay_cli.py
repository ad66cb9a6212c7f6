"""`flyball replay` and `flyball what-if`, as they are typed."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from flyball.config import Governor as Rules
from flyball.governor.policy import decide
from flyball.governor.recording import SCHEMA, Begun, Looked
from flyball.governor.replay import profiles, standard
from flyball.governor.replay.trace import save
from flyball.governor.state import State
from flyball.governor.values import LadderView, Limits, Machine, Rung, Seen, View

FLYBALL = Path(sys.executable).with_name("flyball")


def flyball(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([FLYBALL, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "short.jsonl"
    save(standard.standard("cpu-bursts", "defects", profiles.STAND_INS["defects"], 2, minutes=4), file)
    return file


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    state, rules = State(), Rules()
    lines: list[object] = [Begun(schema=SCHEMA, flyball="0", board="board", rules=rules, state=state)]
    for i in range(20):
        rungs = tuple(Rung(name=name, accuracy=a, work_s=w, spread=0.1, resident=True)
                      for name, a, w in (("big", 0.9, 0.02), ("small", 0.7, 0.002)))  # fmt: skip
        seen = Seen(arrivals_per_s=20.0, answers=20, work_mean_s=0.02, work_std_s=0.002, window_answers=100, p50_s=0.02,
                    p95_s=0.03, late=0.0)  # fmt: skip
        ladder = LadderView(name="a", active="big", rungs=rungs, seen=seen, limits=Limits(deadline_s=0.2))
        view = View(now_s=float(i), wall_s=float(i), machine=Machine(contention=0.0), ladders=(ladder,))
        decisions, state = decide(view, rules, state)
        lines.append(Looked(view=view, decisions=decisions))
    file = tmp_path / "recorded.jsonl"
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return file


def test_a_policy_on_a_trace_with_its_page(trace: Path, tmp_path: Path) -> None:
    done = flyball("replay", trace, "--policy", "static:r112-fp32", "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "cpu-bursts: seed 2, 4 min" in done.stdout
    assert "static:r112-fp32" in done.stdout
    assert "99.0" in done.stdout, "its accuracy"
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_every_policy_side_by_side_as_json(trace: Path) -> None:
    done = flyball("replay", trace, "--compare", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = [score["policy"] for score in found["scores"]]
    assert names[0] == "governor"
    assert {"static:r224-fp32", "threshold", "hysteresis", "pid", "oracle"} <= set(names)
    assert found["best_static"].startswith("static:")
    assert len({score["requests"] for score in found["scores"]}) == 1
    assert len(found["changes"]) == len(names)
    assert flyball("replay", trace, "--compare").stdout.count("static rung in hindsight") == 1


def test_standard_traces_are_written_and_read_again(tmp_path: Path) -> None:
    done = flyball("replay", "--standard", tmp_path / "ten", "--seed", 3, "--ladder", "mobilenets")
    assert done.returncode == 0, done.stderr
    assert {file.stem for file in (tmp_path / "ten").iterdir()} == set(standard.NAMES)
    (tmp_path / "ten/steady.jsonl").write_text("mine")
    again = flyball("replay", "--standard", tmp_path / "ten")
    assert again.returncode == 78
    assert f"{tmp_path / 'ten/steady.jsonl'}: there is such a file already" in again.stderr.replace("\n", "")
    assert (tmp_path / "ten/steady.jsonl").read_text() == "mine"
    one = flyball("replay", tmp_path / "ten/boundary.jsonl", "--policy", "threshold", "--json")
    other = flyball("replay", "boundary:3", "--ladder", "mobilenets", "--policy", "threshold", "--json")
    left, right = json.loads(one.stdout), json.loads(other.stdout)
    for found in (left, right):
        del found["scores"][0]["decide_us"]
    assert left == right


def test_what_if_shows_both_side_by_side(trace: Path, tmp_path: Path) -> None:
    wishes = ("--deadline", "8ms", "--ambient", "45", "--power-cap", "7W")
    done = flyball("what-if", trace, *wishes, "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "as it is" in done.stdout
    assert "deadline 8ms, ambient 45 °C, power cap 7W" in done.stdout
    assert "deadline 8ms" in (tmp_path / "page.html").read_text()
    found = json.loads(flyball("what-if", trace, *wishes, "--json").stdout)
    assert found["changed"] == {"deadline_s": 0.008, "ambient_c": 45.0, "power_cap_w": 7.0}
    assert found["before"]["accuracy"] > found["after"]["accuracy"]


def test_a_recording_is_decided_again(recording: Path) -> None:
    done = flyball("replay", recording)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "20 decisions in 19 s, 0 changes of rung: the same again" in done.stdout
    ruled = flyball("replay", recording, "--config", "/etc/flyball/flyball.toml")
    assert ruled.returncode == 2
    assert "leave out --config" in " ".join(ruled.stderr.replace("│", " ").split())
    lines = recording.read_text().splitlines()
    line = json.loads(lines[5])
    line["decisions"][0]["reason"] = "because"
    recording.write_text("\n".join([*lines[:5], json.dumps(line), *lines[6:]]))
    done = flyball("replay", recording)
    assert done.returncode == 1
    assert "1 differ" in done.stdout
    assert "line 6, a: recorded stay big -> big (because)" in done.stdout
    assert len(json.loads(flyball("replay", recording, "--json").stdout)["differs"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("replay",), 2, "cpu-bursts"),
        (("replay", "cpu-burst"), 78, "no standard trace"),
        (("replay", "cpu-bursts:x"), 2, "seed such as cpu-bursts:3"),
        (("replay", "steady", "--ladder", "imagenet"), 2, "defects, mobilenets"),
        (("replay", "steady", "--policy", "static:none"), 78, "r112-fp32"),
        (("replay", "steady", "--html", "/nowhere/page.html"), 2, "/nowhere/page.html"),
        (("replay", "steady", "--seed", "7"), 2, "cpu-bursts:7"),
        (("replay", "steady", "--standard", "/dev/null/ten"), 2, "leave out the trace"),
        (("replay", "--standard", "/dev/null/ten", "--compare"), 2, "leave out the trace"),
        (("replay", "--standard", "/dev/null/ten", "--html", "page.html"), 2, "leave out the trace"),
        (("what-if", "steady"), 2, "--deadline"),
        (("what-if", "steady", "--deadline", "20kg"), 2, "20kg"),
        (("what-if", "steady", "--power-cap", "0W"), 2, "0W"),
    ],
)
def test_a_mistake_is_answered_with_what_is_expected(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = flyball(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_another_policy_cannot_be_tried_on_a_recording(recording: Path) -> None:
    for arguments in (("replay", recording, "--compare"), ("what-if", recording, "--ambient", "40")):
        done = flyball(*arguments)
        assert done.returncode == 2
        assert "is a recording" in " ".join(done.stderr.replace("│", " ").split())


def test_a_file_with_a_mistake_names_the_line(trace: Path) -> None:
    trace.write_text(trace.read_text().replace('"t_s":7.0', '"t_s":"x"'))
    done = flyball("replay", trace)
    assert done.returncode == 78
    assert "short.jsonl:9" in done.stderr


def test_other_commands_do_not_wait_for_the_simulator() -> None:
    code = (
        "import sys\nfrom flyball.cli.app import run\nrun(['status', '--socket', '/nowhere'])\n"
        "print(*(m for m in sys.modules if m.startswith(('flyball.cli.replay', 'flyball.governor.replay'))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def said_by(done: "subprocess.CompletedProcess[str]") -> str:
    return " ".join(done.stderr.replace("│", " ").split())


def test_a_page_is_not_written_over_what_is_read(trace: Path, tmp_path: Path) -> None:
    before, link = trace.read_bytes(), tmp_path / "link.jsonl"
    link.symlink_to(trace)
    for arguments in (("replay", trace, "--html", link), ("what-if", link, "--ambient", "40", "--html", trace)):
        done = flyball(*arguments)
        assert done.returncode == 2
        assert "would be written over it" in said_by(done)
    assert trace.read_bytes() == before


def test_a_file_has_rungs_of_its_own(trace: Path, recording: Path) -> None:
    for file in (trace, recording):
        done = flyball("replay", file, "--ladder", "mobilenets")
        assert done.returncode == 2
        assert "has rungs of its own" in said_by(done)


def on_a_full_disk(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """No file grows beyond 50 KB."""
    return subprocess.run(
        [FLYBALL, *map(str, arguments)], capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )  # fmt: skip


def test_a_full_disk_leaves_nothing_half_and_names_the_file(trace: Path, tmp_path: Path) -> None:
    ten, page = tmp_path / "ten", tmp_path / "page.html"
    done = on_a_full_disk("replay", "--standard", ten)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {ten / 'steady.jsonl'}: ")
    assert list(ten.iterdir()) == [], "half a trace would be a shorter one"
    page.write_text("the one before")
    done = on_a_full_disk("replay", trace, "--compare", "--html", page)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {page}: ")
    assert page.read_text() == "the one before"
    assert "best static rung" in done.stdout, "what was found is told all the same"


def test_a_recording_does_not_steer_the_terminal(recording: Path) -> None:
    lines = [json.loads(line) for line in recording.read_text().splitlines()]
    lines[5]["decisions"][0]["reason"] = "\x1b[2Jgone\r\nline 9, a: \u202e"
    lines[6]["decisions"] = []
    lines.append({"kind": "ended", "why": "\x1b]0;title\x07"})
    recording.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = flyball("replay", recording)
    assert done.returncode == 1
    assert all(c.isprintable() or c == "\n" for c in done.stdout), repr(done.stdout)
    assert "19 decisions in 19 s, 0 changes of rung: 2 differ" in done.stdout
    assert "line 7, a: recorded nothing; now stay big -> big" in done.stdout
    lines[0]["thresholds"] = {"\x1b[31m": ["when"]}
    recording.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "\x1b" not in flyball("replay", recording).stderr
