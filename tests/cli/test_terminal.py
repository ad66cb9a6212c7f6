"""What commands share: durations, exit codes."""

import subprocess
import sys

import pytest
import typer

from flyball.cli.terminal import fail, milliseconds, percent, seconds
from flyball.errors import ConfigError, ControlError, LadderError


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172800)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "x", "-5s", "10 minutes", "1e3", "5w", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a duration"):
        seconds(text)


def test_exit_codes_say_whether_a_file_has_to_be_changed(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(ConfigError("two mistakes", ["a: [b] is wrong", "c"])) == 78
    assert fail(LadderError("no")) == 78
    assert fail(ControlError("not running")) == 1
    printed = capsys.readouterr().err
    assert "a: [b] is wrong" in printed, "square brackets are text, not markup"


def test_unknown_is_a_dash_and_never_zero() -> None:
    assert (milliseconds(None), percent(None)) == ("-", "-")
    assert (milliseconds(0.0), percent(0.0)) == ("0.0", "0.0 %")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--help"], 0, "Serve quantized models"),
        (["nonsense"], 2, "No such command"),
        (["switch", "x"], 2, "Missing argument"),
        (["ladder", "new", "/nowhere/a.onnx", "--normalize", "odd", "--task", "odd"], 78, "no such file"),
    ],
)
def test_usage(arguments: list[str], code: int, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flyball", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={"COLUMNS": "200"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
