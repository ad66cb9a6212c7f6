"""A limit that cannot be one is refused wherever it comes in, with its place: never is it "no limit" in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
import pytest
from made_traces import made

from flyball import config
from flyball.config import Governor as Rules
from flyball.errors import ConfigError, MessageError
from flyball.governor.constraints import QUANTILES, mistakes
from flyball.governor.recording import SCHEMA, Begun, Looked
from flyball.governor.replay.recorded import check
from flyball.governor.replay.study import changed
from flyball.governor.replay.trace import load, save
from flyball.governor.rules import RuleError, parse
from flyball.governor.state import State
from flyball.governor.values import LadderView, Limits, Rung, Seen, View, limits_of
from flyball.uplink.configuring import Configuring, Tables
from flyball.uplink.handlers import PolicyArgs
from flyball.uplink.messages import decode
from flyball.uplink.twin import Twin

FLYBALL = Path(sys.executable).with_name("flyball")
LADDERS = ("latency_p95_ms", "deadline_ms", "temperature_c", "memory_available_mib", "accuracy")
MACHINES = (*LADDERS, "power_w", "energy_wh_per_h")
WRONG = ("-1", "0", "-1e-9", "nan", "inf", "-inf", "1e16", "10000000000000000")


# ------------------------------------------------------------------------------------------- the configuration file


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(
    ("table", "name"),
    [*(("governor", name) for name in MACHINES), *(("ladder.cats", name) for name in LADDERS)],
)
def test_of_the_configuration_with_file_and_key(tmp_path: Path, table: str, name: str, value: str) -> None:
    file = tmp_path / "flyball.toml"
    file.write_text(f"[{table}.limits]\n{name} = {value}\n")
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}: {table}.limits.{name}: expected a number above 0, at most "), problem
    assert ", found " in problem


@pytest.mark.parametrize("name", [name for name in MACHINES if name != "accuracy"])
def test_the_largest_that_the_configuration_takes_is_a_limit(tmp_path: Path, name: str) -> None:
    file = tmp_path / "flyball.toml"
    file.write_text(f"[governor.limits]\n{name} = {1e8 if name == 'memory_available_mib' else 1e9}\n")
    settings = config.load(file)
    found = msgspec.structs.asdict(limits_of(settings, "cats"))
    fields = {"latency_p95_ms": "deadline_s", "deadline_ms": "deadline_s", "energy_wh_per_h": "energy_j_per_h"}
    fields["memory_available_mib"] = "memory_available_bytes"
    assert found[fields.get(name, name)] > 0


# ------------------------------------------------------------------------------------------------------- the fleet


class Machine:
    """Implements configuring.Configurable over a real file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.applied: list[Tables] = []

    def examine(self, overlay: Tables) -> Sequence[str]:
        try:
            config.load(self.file, overlay=overlay)
        except ConfigError as error:
            return error.problems
        return ()

    async def apply(self, overlay: Tables) -> None:
        self.applied.append(overlay)

    def unwell(self) -> Collection[str]:
        return ()


class Documents:
    """Implements configuring.Documents."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}

    async def document(self, name: str) -> bytes | None:
        return self.bodies.get(name)

    async def save_document(self, name: str, body: bytes) -> None:
        self.bodies[name] = body


@pytest.mark.anyio
@pytest.mark.parametrize("value", [-1, 0, 1e16, 10**18])
@pytest.mark.parametrize("key", ["governor.limits.power_w", "ladder.cats.limits.deadline_ms"])
async def test_of_the_desired_document_with_its_key(tmp_path: Path, key: str, value: float) -> None:
    (tmp_path / "flyball.toml").write_text("")
    machine, documents = Machine(tmp_path / "flyball.toml"), Documents()
    twin = Twin(Configuring(machine, documents, trial_s=0.01), documents)
    await twin.take(json.dumps({"version": 1, "doc": {"config": {key: value}}}).encode())
    report = await twin.report("e")
    (error,) = report.errors
    assert error.key == f"config.{key}"
    assert "expected a number above 0, at most 1000000000, found" in error.message
    assert (report.refused_version, machine.applied) == (1, [])


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("value", ["-1", "0", "1e16"])
def test_of_an_order_with_its_name(name: str, value: str) -> None:
    with pytest.raises(MessageError, match=name):
        decode(f'{{"{name}": {value}}}'.encode(), PolicyArgs)


# ----------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("when power > -1 W then step_down", "power is never below 0"),
        ("when power > 1e16 W then step_down", "power is never above 1e+15, so that this says nothing"),
        ("when latency_p95 > 1e15 h then step_down", "latency_p95 is never above 1e+15"),
        ("when memory_available < 1e9 GiB then step_down", "memory_available is never above 1e+15"),
        ("when temperature > 1e20 C then step_down", "temperature is never above 1e+15"),
        ("when throttled for 1e18 s then step_down", "a duration is never above 1e+15"),
        ("when throttled for -1 s then step_down", "a duration is never below 0"),
        ("when cpu > 100 % then step_down", "cpu is never above 1 (100 %), so that this never holds"),
        ("when accuracy > 1 then step_down", "accuracy is never above 1 (100 %), so that this never holds"),
        ("when late < 0 then step_down", "late is never below 0, so that this never holds"),
        ("when memory_available < 0 B then step_down", "memory_available is never below 0, so that this never holds"),
        ("when temperature < -273.15 C then hold", "temperature is never below -273.15, so that this never holds"),
        ("when hour > 24 then step_down", "hour is never above 24, so that this never holds"),
        ("when hour >= 24 then step_down", "hour is always below 24, so that this never holds"),
        ("when hour == 24 then step_down", "hour is always below 24, so that this never holds"),
        ("when power >= 1e18 mW then step_down", "power is always below 1e+15, so that this never holds"),
    ],
)
def test_of_a_rule_with_its_column(text: str, what: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse(text)
    assert caught.value.what.startswith(what)
    assert text[caught.value.column].isdigit() or text[caught.value.column] == "-"


@pytest.mark.parametrize(
    "text",
    [
        "when cpu >= 100 % then hold",
        "when cpu == 1 then hold",
        "when late > 0 then hold",
        "when late <= 0 then hold",
        "when queue == 0 then hold",
        "when hour >= 0 and hour < 24 then hold",
        "when hour > 23.99 then hold",
        "when throttled for 0 s then hold",
    ],
)
def test_what_can_hold_at_the_bound_is_a_rule(text: str) -> None:
    parse(text)


# ------------------------------------------------------------------------------------------- traces and recordings

FIELDS = ("deadline_s", "temperature_c", "memory_available_bytes", "power_w", "energy_j_per_h", "accuracy")


@pytest.mark.parametrize("value", [-1.0, -1e-300, 0.0, 1.1e15, 1e300])
@pytest.mark.parametrize("name", FIELDS)
def test_of_a_trace_with_its_line(tmp_path: Path, name: str, value: float) -> None:
    file = tmp_path / "trace.jsonl"
    save(made([{}] * 3), file)
    head, *rest = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps({**json.loads(head), "limits": {name: value}}), *rest]))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert f"trace.jsonl:1: limits.{name}: expected more than 0, at most " in str(caught.value)
    assert "without a limit, leave it out" in str(caught.value)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0, 2.0])
def test_of_a_quantile_with_its_line(tmp_path: Path, value: float) -> None:
    """The same sentence in a trace and in a recording; the configuration has the same bounds."""
    trace, recorded, toml = (tmp_path / name for name in ("trace.jsonl", "recorded.jsonl", "flyball.toml"))
    save(made([{}] * 3), trace)
    head, *rest = trace.read_text().splitlines()
    trace.write_text("\n".join([json.dumps({**json.loads(head), "limits": {"quantile": value}}), *rest]))
    put_recording(recorded, {"deadline_s": 0.1, "quantile": value})
    toml.write_text(f"[governor.limits]\nquantile = {value}\n")
    for read, file in ((load, trace), (check, recorded)):
        with pytest.raises(ConfigError, match=rf"limits\.quantile: expected 0\.5 to 0\.9999, found {value:g}"):
            read(file)
    with pytest.raises(ConfigError, match=r"quantile: expected a number from 0\.5 to 0\.9999, found"):
        config.load(toml)


@pytest.mark.parametrize("value", QUANTILES)
def test_the_outermost_quantiles_are_decided_with(tmp_path: Path, value: float) -> None:
    file = tmp_path / "recorded.jsonl"
    put_recording(file, {"deadline_s": 0.1, "quantile": value})
    assert check(file).looks == 1
    (tmp_path / "flyball.toml").write_text(f"[governor.limits]\nquantile = {value}\n")
    assert limits_of(config.load(tmp_path / "flyball.toml"), "cats").quantile == value


def put_recording(file: Path, limits: dict[str, float]) -> None:
    """One look at a ladder with figures that the law computes with."""
    rungs = (Rung(name="big", accuracy=0.9, work_s=0.03, spread=0.1), Rung(name="small", accuracy=0.8, work_s=0.004))
    seen = Seen(arrivals_per_s=20.0, answers_per_s=20.0, answers=20, work_mean_s=0.03, work_std_s=0.003, late=0.1,
                window_answers=100, window_late=0.1, p50_s=0.03, p95_s=0.05, p99_s=0.06)  # fmt: skip
    ladder = LadderView(name="cats", active="big", rungs=rungs, seen=seen)
    view = View(now_s=1.0, wall_s=1.0, ladders=(ladder,))
    look = json.loads(msgspec.json.encode(Looked(view=view, decisions=())))
    look["view"]["ladders"][0]["limits"] = limits
    begun = Begun(schema=SCHEMA, flyball="0", board="", rules=Rules(), state=State())
    file.write_bytes(msgspec.json.encode(begun) + b"\n" + json.dumps(look).encode())


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.1e15])
@pytest.mark.parametrize("name", FIELDS)
def test_of_a_recording_with_its_line_and_ladder(tmp_path: Path, name: str, value: float) -> None:
    begun = Begun(schema=SCHEMA, flyball="0", board="", rules=Rules(), state=State())
    view = View(now_s=1.0, wall_s=1.0, ladders=(LadderView(name="cats", active=None, rungs=()),))
    look = json.loads(msgspec.json.encode(Looked(view=view, decisions=())))
    file = tmp_path / "recorded.jsonl"
    file.write_bytes(msgspec.json.encode(begun) + b"\n" + json.dumps(look).encode())
    assert check(file).looks == 1
    look["view"]["ladders"][0]["limits"][name] = value
    file.write_bytes(msgspec.json.encode(begun) + b"\n" + json.dumps(look).encode())
    with pytest.raises(ConfigError, match=rf"recorded\.jsonl:2: ladder cats: limits\.{name}: expected more than 0, "):
        check(file)


def test_what_no_limit_forgets_is_no_mistake() -> None:
    for limits in (Limits(), Limits(deadline_s=1e-9, power_w=1e15, accuracy=1.0)):
        assert mistakes(msgspec.structs.asdict(limits)) == []
    assert len(mistakes({"deadline_s": float("nan"), "power_w": float("inf")})) == 2


# --------------------------------------------------------------------------------------------------------- what-if


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.1e15, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["deadline_s", "power_cap_w"])
def test_of_what_is_changed_in_a_trace(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected 1e-09 to 1e"):
        changed(made([{}]), **{name: value})


@pytest.mark.parametrize("value", [-274.0, 1001.0, float("nan")])
def test_of_an_ambient_that_is_none(value: float) -> None:
    with pytest.raises(ConfigError, match="ambient_c: expected -273 to 1000"):
        changed(made([{}]), ambient_c=value)


@pytest.mark.parametrize(
    ("command", "option", "value", "said"),
    [
        ("what-if", "--deadline", "-20ms", "expected 20ms or 0.1s"),
        ("what-if", "--deadline", "nan", "expected 20ms or 0.1s"),
        ("what-if", "--deadline", "9999999999999999s", "expected 1e-06 to 1e+09 s, such as 20ms or 0.1s"),
        ("what-if", "--power-cap", "-7W", "expected 7W"),
        ("what-if", "--power-cap", "9999999999999999", "expected 1e-06 to 1e+09 W, such as 7W"),
        ("what-if", "--ambient", "nan", "90"),
        ("what-if", "--ambient", "-300", "-40"),
        ("record", "--seconds", "nan", "greater than or equal to 1"),
        ("record", "--max-mib", "nan", "greater than or equal to 0.01"),
    ],
)
def test_of_the_command_line_with_its_option(tmp_path: Path, command: str, option: str, value: str, said: str) -> None:
    place = "steady" if command == "what-if" else str(tmp_path / "recorded.jsonl")
    done = subprocess.run([FLYBALL, command, place, f"{option}={value}"], capture_output=True, text=True, timeout=60)
    told = " ".join(done.stderr.replace("│", " ").split())
    assert done.returncode == 2, done.stdout + told
    assert option in told
    assert said in told
    assert list(tmp_path.iterdir()) == []
