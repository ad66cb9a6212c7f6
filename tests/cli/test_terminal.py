"""What commands share: durations, exit codes."""

import io
import subprocess
import sys

import pytest
import typer
from rich.console import Console

from flyball.cli.terminal import duration, fail, milliseconds, percent, seconds, table
from flyball.errors import ConfigError, ControlError, LadderError


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172800)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "x", "-5s", "10 minutes", "1e3", "5w", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a duration"):
        seconds(text)


@pytest.mark.parametrize("text", ["31d", "721h", "2592001", "9" * 400])
def test_durations_have_an_end(text: str) -> None:
    assert seconds("30d") == 30 * 86400
    with pytest.raises(typer.BadParameter, match="at most 30d"):
        seconds(text)


@pytest.mark.parametrize(
    ("span_s", "text"), [(0.4, "0 s"), (90, "90 s"), (600, "10 min"), (7200, "2 h"), (12600, "3.5 h"), (2e5, "2.3 d")]
)
def test_durations_for_people(span_s: float, text: str) -> None:
    assert duration(span_s) == text


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


@pytest.mark.parametrize("width", range(19, 60))
def test_a_table_drops_columns_rather_than_folding_them(width: int) -> None:
    columns = ("!name", "?optional", "?>other", ">figure")
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table(columns, [("a-long-name", "text", "12.5", "3")], "", width), crop=False)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert len(lines) == 2, "nothing is folded"
    assert lines[0] in (["name", "figure"], ["name", "optional", "figure"], ["name", "optional", "other", "figure"])
    assert lines[1][0] == "a-long-name"
