"""`flyball bench` on the real example ladder, as a user runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from real_daemon import flyball

from flyball.ladder.profile import Profile, load
from flyball.measure.conditions import children

LADDER = Path(__file__).resolve().parents[2] / "examples/defects/ladder"
NARROW = {**os.environ, "COLUMNS": "80"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("bench")
    done = flyball(
        "bench", LADDER, "--rung", "r56-fp32", "--rung", "r64-fp32", "--rung", "r224-fp16", "--seconds", "2",
        "--json", folder / "p.json", "--html", folder / "p.html", check=False, env=NARROW,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done, folder


def profile_of(folder: Path) -> Profile:
    return load(folder / "p.json")


def test_the_table_fits_and_says_that_it_was_too_short(
    measured: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, _ = measured
    assert done.returncode == 1, "figures that may not be used are no success"
    rows = [line for line in done.stdout.splitlines() if re.match(r"r(56|64)-fp32 ", line)]
    assert len(rows) == 4, "twice each: speed and cost"
    assert all(len(row) <= 80 for row in rows)
    assert all(" no " in row for row in rows[:2])
    assert re.search(r"not valid \(every rung\): it ran for \d\.\d s; 30 s are needed", done.stdout)
    assert (
        "skipped (r224-fp16): none of its accelerators is present: gpu" in done.stdout or "r224-fp16  " in done.stdout
    )


def test_the_profile_holds_what_a_governor_needs(measured: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    profile = profile_of(measured[1])
    assert (profile.ladder, profile.version, profile.scenario) == ("defects", "1", "single")
    assert profile.machine.kernel == os.uname().release
    assert not profile.valid
    assert [r.name for r in profile.rungs] == ["r224-fp16", "r64-fp32", "r56-fp32"], "the ladder's own order"
    for rung in (r for r in profile.rungs if not r.skipped):
        assert not rung.error
        assert rung.latency is not None
        assert rung.latency.p50_ms <= rung.latency.p90_ms <= rung.latency.p95_ms <= rung.latency.p99_ms
        assert rung.early_stopping is not None
        assert rung.inferences == rung.latency.queries
        assert rung.throughput_per_s == pytest.approx(rung.inferences / rung.duration_s)
        # One after the other: they fill the time, but for what lies between two requests.
        assert rung.inferences * rung.latency.mean_ms / 1e3 == pytest.approx(rung.duration_s, rel=0.25)
        assert rung.load_s is not None
        assert rung.rss_bytes is None or rung.rss_bytes > 10 << 20
        assert rung.accuracy is not None
        assert rung.others_cpu is not None
    assert profile.rungs[1].sha256 in (LADDER / "flyball-ladder.toml").read_text()


def test_energy_adds_up_and_says_what_it_is_of(measured: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    found = [r for r in profile_of(measured[1]).rungs if r.energy is not None]
    for rung in found:
        assert rung.energy is not None
        assert rung.energy.gross_j * rung.inferences == pytest.approx(rung.energy.power_w * rung.duration_s)
        assert rung.energy.scope in measured[0].stdout
        if rung.energy.net_j is not None:
            assert rung.energy.net_j < rung.energy.gross_j
    assert found or "no energy figure" in measured[0].stdout


def test_the_page_is_whole(measured: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    text = (measured[1] / "p.html").read_text()
    assert "<script" not in text
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(", text)
    pictures = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert pictures
    assert "r56-fp32" in {element.text for element in pictures[0].iter("text")}
    assert "it ran for 2." in text


def test_arrivals_come_at_the_rate_that_was_given(tmp_path: Path) -> None:
    done = flyball("bench", LADDER, "--rung", "r56-fp32", "--seconds", "2", "--scenario", "server", "--rate", "50",
                   "--json", tmp_path / "p.json", check=False)  # fmt: skip
    assert done.returncode == 1
    (rung,) = profile_of(tmp_path).rungs
    assert rung.rate_per_s == 50
    assert rung.errors == 0
    assert re.search(r"^rung .* per s +rate", done.stdout, re.MULTILINE), "without it nobody knows what was asked"
    assert 60 < rung.inferences < 140, "100 are expected, and ten are one standard deviation"
    assert any("the 99th percentile needs 662" in reason for reason in rung.reasons)


def test_ctrl_c_gives_what_was_measured_marked_as_such(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flyball", "bench", LADDER, "--rung", "r64-fp32", "--rung", "r56-fp32",
         "--seconds", "600", "--json", tmp_path / "p.json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert "r64-fp32: 1 of 2" in process.stderr.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(17)  # 12.5 s of warming up and idling, and some of the run
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    first, second = profile_of(tmp_path).rungs
    assert any("interrupted after" in reason for reason in first.reasons)
    assert first.latency is not None
    assert second.error == "interrupted before it was measured"
    assert "interrupted after" in out


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("nowhere",), 78, "nowhere: not a folder"),
        ((LADDER, "--rung", "r1"), 2, "the ladder has r224-fp32"),
        ((LADDER, "--rate", "5"), 2, "--rate is for --scenario server"),
        ((LADDER, "--scenario", "server", "--rate", "90000", "--seconds", "3600"), 2, "more than 10000000 arrivals"),
        ((LADDER, "--json", "/nowhere/p.json"), 2, "/nowhere/p.json: cannot be written"),
        ((LADDER, "--json", "/proc/p.json"), 2, "/proc/p.json: cannot be written"),
        ((LADDER, "--html", "/"), 2, "/: cannot be written"),
        ((LADDER, "--json", "-"), 2, "-: expected the name of a file"),
        ((LADDER, "--scenario", "burst"), 2, "burst"),
        ((LADDER, "--seconds", "0"), 2, "--seconds"),
        ((LADDER, "--seconds", "-1"), 2, "--seconds"),
        ((LADDER, "--seconds", "nan"), 2, "--seconds"),
        ((LADDER, "--scenario", "server", "--rate", "nan"), 2, "--rate"),
    ],
)
def test_wrong_use_is_told_before_anything_is_measured(arguments: tuple[str, ...], code: int, expected: str) -> None:
    done = flyball("bench", *arguments, check=False, env={**NARROW, "COLUMNS": "200"})
    assert done.returncode == code
    assert expected in done.stdout + done.stderr


def test_a_worker_that_is_killed_in_the_run_speaks_against_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flyball", "bench", LADDER, "--rung", "r56-fp32", "--seconds", "60",
         "--json", tmp_path / "p.json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert "r56-fp32: 1 of 1" in process.stderr.readline()
        time.sleep(14)  # 11.5 s of warming up and idling, and some of the run
        (worker,) = children(Path("/proc"), process.pid)
        os.kill(worker, signal.SIGKILL)
        assert "killed by signal 9" in process.stderr.readline()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    (rung,) = profile_of(tmp_path).rungs
    assert any("its worker ended during the run" in reason for reason in rung.reasons), rung.reasons


def test_files_that_cannot_be_written_are_found_behind_links_too(tmp_path: Path) -> None:
    (tmp_path / "dangling.json").symlink_to("/nowhere/p.json")
    (tmp_path / "circle.json").symlink_to("circle.json")
    (tmp_path / "same.html").symlink_to("p.json")
    for arguments, expected in (
        (("--json", tmp_path / "dangling.json"), "dangling.json: cannot be written"),
        (("--json", tmp_path / "circle.json"), "circle.json: cannot be written"),
        (("--json", tmp_path / ("x" * 300)), "cannot be written"),
        (("--json", tmp_path / "p.json", "--html", tmp_path / "same.html"), "--json and --html: both are"),
    ):
        done = flyball("bench", LADDER, *arguments, check=False, env={**NARROW, "COLUMNS": "900"})
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr
    assert not (tmp_path / "p.json").exists()
    assert len(list(tmp_path.iterdir())) == 3, "nothing is left of the attempts"


def test_files_are_written_when_nobody_reads_the_table(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flyball", "bench", LADDER, "--rung", "r56-fp32", "--seconds", "0.5",
         "--json", tmp_path / "p.json", "--html", tmp_path / "p.html"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(60) == 1
    assert "Traceback" not in errors
    assert profile_of(tmp_path).rungs[0].latency is not None
    assert (tmp_path / "p.html").read_text().endswith("</html>\n")


def test_memory_that_is_refused_is_a_result_of_the_rung(tmp_path: Path) -> None:
    """The slots of a ladder are larger than the shell lets any file be, shared memory included."""
    command = [sys.executable, "-m", "flyball", "bench", LADDER, "--rung", "r64-fp32", "--rung", "r56-fp32",
               "--seconds", "0.5", "--json", tmp_path / "p.json"]  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 256; exec "$@"', "bash", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert ["File too large" in r.error for r in profile_of(tmp_path).rungs] == [True, True]
    assert "not measured (every rung)" in done.stdout


def test_a_rung_that_cannot_be_opened_is_a_result(tmp_path: Path) -> None:
    for file in LADDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "r64-fp32.onnx").write_bytes(b"damaged")
    done = flyball("bench", tmp_path, "--rung", "r64-fp32", "--rung", "r56-fp32", "--seconds", "0.5", "--json",
                   tmp_path / "p.json", check=False)  # fmt: skip
    assert done.returncode == 1
    damaged, sound = json.loads((tmp_path / "p.json").read_text())["rungs"]
    assert "sha256" in damaged["error"]
    assert damaged["latency"] is None
    assert sound["latency"]["queries"] > 0, "the others are measured all the same"
    assert "not measured (r64-fp32)" in done.stdout
