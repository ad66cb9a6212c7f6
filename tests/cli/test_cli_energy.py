"""`flyball energy`: the program's own output and exit code, and beside them a report that calls an estimate one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flyball.cli.energy import Run, lines, net
from flyball.energy import Report

FLYBALL = Path(sys.executable).with_name("flyball")


def energy(*arguments: object, **more: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [FLYBALL, "energy", *map(str, arguments)], capture_output=True, text=True, timeout=60, **more  # type: ignore[call-overload,no-any-return]
    )  # fmt: skip


def test_the_program_keeps_its_output_and_its_exit_code(tmp_path: Path) -> None:
    code = "import sys, time; time.sleep(0.6); print('out'); print('err', file=sys.stderr); sys.exit(7)"
    done = energy("--json", tmp_path / "report.json", "--", sys.executable, "-c", code)
    assert done.returncode == 7
    assert done.stdout == "out\n"
    assert done.stderr.startswith("err\n")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["exit_code"], report["command"][0]) == (7, sys.executable)
    assert report["run"]["seconds"] > 0.6
    if report["run"]["scope"] == "estimated":
        assert "estimated, not measured" in done.stderr
    assert report["run"]["energy_j"] is None or report["run"]["energy_j"] > 0


def test_idling_is_subtracted_only_where_it_was_measured() -> None:
    burn = "import time; end = time.time() + 1\nwhile time.time() < end: pass"
    done = energy("--idle", "0.5", "--json", "-", "--", sys.executable, "-c", burn)
    report = json.loads(done.stderr.partition("\n")[2])
    assert report["idle"]["seconds"] >= 0.5
    if report["net_j"] is not None:
        assert 0 < report["net_j"] < report["run"]["energy_j"]


@pytest.mark.parametrize(("command", "code"), [("no-such-program-here", 127), ("/", 126)])
def test_a_program_that_does_not_start(command: str, code: int) -> None:
    done = energy("--", command)
    assert done.returncode == code
    assert command in done.stderr
    assert " J" not in done.stderr


def test_a_program_ended_by_a_signal_and_one_that_is_passed_on() -> None:
    assert energy("--", "sh", "-c", "kill -9 $$").returncode == 128 + 9
    process = subprocess.Popen([FLYBALL, "energy", "--", "sleep", "30"], stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end_s = time.monotonic() + 20
    while not any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in children.read_text().split()):
        assert time.monotonic() < end_s, "the program was not started"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + 15


def test_without_a_command_it_says_what_it_wants() -> None:
    done = energy()
    assert done.returncode == 2
    assert "Missing argument" in done.stderr


def test_a_report_that_cannot_be_written_changes_nothing_else(tmp_path: Path) -> None:
    done = energy("--json", tmp_path / "no/folder.json", "--", "sh", "-c", "sleep 0.5; exit 3")
    assert done.returncode == 3
    assert "not written: No such file or directory" in done.stderr
    assert " W on average" in done.stderr or "no energy figure" in done.stderr


def test_a_program_that_exits_like_one_that_was_not_found_is_reported_nonetheless() -> None:
    done = energy("--", "sh", "-c", "sleep 0.6; exit 127")
    assert done.returncode == 127
    assert " W on average" in done.stderr or "no energy figure" in done.stderr


def test_a_program_that_takes_a_millisecond_gets_no_figure() -> None:
    done = energy("--json", "-", "--", "true")
    report = json.loads(done.stderr)
    assert (done.returncode, report["run"]["energy_j"], report["run"]["mean_w"]) == (0, None, None)
    assert report["run"]["why"]


@pytest.mark.parametrize("option", ["--idle", "--period"])
@pytest.mark.parametrize("value", ["nan", "-1", "1e9", "x"])
def test_seconds_that_are_none_are_told_before_anything_runs(option: str, value: str, tmp_path: Path) -> None:
    done = energy(option, value, "--", "touch", tmp_path / "ran")
    assert done.returncode == 2
    assert option in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_arguments_that_are_no_text_reach_the_program_and_the_report(tmp_path: Path) -> None:
    code = "import os, sys; sys.exit(4 if os.fsencode(sys.argv[1]) == b'a\\xff' else 5)"
    done = energy("--json", tmp_path / "report.json", "--", sys.executable, "-c", code, os.fsdecode(b"a\xff"))
    assert (done.returncode, done.stderr.count("Traceback")) == (4, 0)
    assert json.loads((tmp_path / "report.json").read_text())["command"][-1] == "a\ufffd"


def test_with_nobody_at_stderr_the_exit_code_is_still_the_programs(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [FLYBALL, "energy", "--json", tmp_path / "report.json", "--", "sh", "-c", "exit 5"]
    done = subprocess.run(command, stderr=writer, timeout=60)
    os.close(writer)
    assert done.returncode == 5
    assert json.loads((tmp_path / "report.json").read_text())["exit_code"] == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_key_that_ends_the_program_does_not_end_the_report(number: signal.Signals) -> None:
    code = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(9))\n"
        "time.sleep(0.5); print('ready', flush=True); time.sleep(30)"
    )
    process = subprocess.Popen(
        [FLYBALL, "energy", "--", sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, number)  # as the terminal does: to all in the foreground
    _, said = process.communicate(timeout=20)
    assert process.returncode == 9
    assert " W on average" in said or "no energy figure" in said


def report(energy_j: float, seconds: float = 10.0, **more: object) -> Report:
    figures: dict[str, object] = {
        "mean_w": energy_j / seconds,
        "scope": "module",
        "source": "jetson: VDD_IN",
        "uncertainty": 0.02,
        "coverage": 1.0,
    }
    return Report(seconds=seconds, energy_j=energy_j, **{**figures, **more})  # type: ignore[arg-type]


def said(run: Report, idle: Report | None = None) -> str:
    net_j, uncertainty = net(run, idle)
    done = Run(command=["x"], exit_code=0, run=run, idle=idle, net_j=net_j, net_uncertainty=uncertainty)
    return "\n".join(line.plain for line in lines(done))


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (report(36_000.4, 3600), "36000 J +-2%  10 W on average over 3600.00 s  (module, jetson: VDD_IN)"),
        (report(1.5, 0.5), "1.5 J +-2%  3 W on average over 0.50 s  (module, jetson: VDD_IN)"),
        (report(20.0, uncertainty=0.004), "20 J +-0.4%  2 W"),
        (report(20.0, uncertainty=None), "20 J  2 W"),
        (report(20.0, coverage=0.934), "(module, jetson: VDD_IN; readings cover 93% of the time)"),
        (report(20.0, scope="estimated"), "(estimated, not measured)"),
    ],
)
def test_the_line_says_the_figure_and_what_it_is_of(run: Report, words: str) -> None:
    assert words in said(run)


def test_what_is_above_idling_has_an_uncertainty_of_its_own_or_is_none() -> None:
    idle = report(30.0)
    assert net(report(100.0), idle) == (pytest.approx(70.0), pytest.approx((2.0**2 + 0.6**2) ** 0.5 / 70))
    assert "70 J +-3% more than idling at 3 W" in said(report(100.0), idle)
    assert net(report(31.0), idle) == (pytest.approx(1.0), pytest.approx((0.62**2 + 0.6**2) ** 0.5))
    for run in (report(30.5), report(30.0), report(29.0)):
        assert net(run, idle) == (None, None)
        assert "no more than idling at 3 W, as far as these figures can tell" in said(run, idle)
    assert net(report(100.0, uncertainty=None), idle) == (pytest.approx(70.0), None)
    other = report(30.0, source="hwmon: VDD_IN")
    assert net(report(100.0), other) == (None, None)
    assert "another sensor" in said(report(100.0), other)


def test_a_script_without_its_interpreter_is_not_called_missing(tmp_path: Path) -> None:
    script = tmp_path / "train"
    script.write_text("#!/no/such/python\n")
    script.chmod(0o755)
    done = energy("--", script)
    assert done.returncode == 127
    assert f"{script}: the interpreter that its first line names is not there" in done.stderr
    assert "no such program" not in done.stderr
