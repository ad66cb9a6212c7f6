"""Trying the governor on traces: replay, what-if.

A trace or a recording -> governor/replay -> tables, a page. No daemon is asked and nothing is measured.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from flyball.cli.terminal import ConfigOption, JsonOption, configuration, duration, err, out, print_json, print_table
from flyball.errors import ConfigError
from flyball.governor.replay import profiles, standard
from flyball.governor.replay.page import HEADS, page, row
from flyball.governor.replay.recorded import Checked, check
from flyball.governor.replay.run import POLICIES
from flyball.governor.replay.score import Score
from flyball.governor.replay.study import changed, compare, everything
from flyball.governor.replay.trace import Model, Trace, kind_of, legible, load, save
from flyball.ladder.profile import write
from flyball.ports import Decision

_QUIET_S = 2.0  # what is done sooner needs no bar
_SHOWN = 10  # decisions of a recording that differ
_LADDER = "defects"
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([A-Za-z°]*)\Z")
_UNITS = {"s": {"ms": 1e-3, "s": 1.0}, "W": {"W": 1.0, "mW": 1e-3, "": 1.0}}
_EXAMPLES = {"s": "20ms or 0.1s", "W": "7W"}
_LEAST, _MOST = 1e-6, 1e9  # seconds and watts; as the configuration's limits have it, more is a typing error
_MARKS = ("!", ">", ">", "?>", "?>", "?>", ">", "?>", "?>", "?>", "?>", "?>")

TraceArgument = typer.Argument(
    help="A trace or a recording (.jsonl), or a standard trace by name and seed: cpu-bursts, cpu-bursts:3."
)
LadderOption = typer.Option("--ladder", help="The rungs of a standard trace: defects (the default), mobilenets.")
RungsOption = typer.Option(
    "--rungs", help="Take the rungs from this file of bench/contention.py (default: figures that came with Flyball)."
)
PolicyOption = typer.Option("--policy", help=f"{', '.join(POLICIES)}, or static:RUNG.")
HtmlOption = typer.Option("--html", help="Write a page with plots.")


def replay(
    context: typer.Context,
    trace: Annotated[str | None, TraceArgument] = None,
    policy: Annotated[str, PolicyOption] = "governor",
    all_of_them: Annotated[
        bool, typer.Option("--compare", help="Beside every other policy, each rung held still among them.")
    ] = False,
    standard_to: Annotated[
        Path | None, typer.Option("--standard", help="Write the ten standard traces into this folder, and end.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the traces that --standard writes (default: 0).")] = None,
    ladder: Annotated[str | None, LadderOption] = None,
    rungs: Annotated[Path | None, RungsOption] = None,
    html_file: Annotated[Path | None, HtmlOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Run a policy on a trace in a simulated machine, or check that a recording leads to the same decisions again.

    The governor's rules are those of the configuration; limits are the trace's.

    Example: flyball replay cpu-bursts:3 --compare --html replay.html
    """
    if standard_to is not None:
        if trace is not None or policy != "governor" or all_of_them or html_file is not None or as_json:
            raise typer.BadParameter("--standard writes traces and ends; leave out the trace, --policy, --compare, "
                                     "--html and --json, or run one of the traces afterwards")  # fmt: skip
        _write_standard(standard_to, ladder, rungs, seed or 0)
        return
    if seed is not None:
        raise typer.BadParameter(f"--seed is of the traces that --standard writes; expected a seed behind the trace's "
                                 f"name, such as cpu-bursts:{seed}")  # fmt: skip
    if trace is None:
        raise typer.BadParameter(f"expected a file, or one of {', '.join(standard.NAMES)} (with a seed: NAME:3)")
    if _is_recording(trace):
        if all_of_them or policy != "governor" or html_file is not None:
            raise typer.BadParameter(f"{trace} is a recording: another policy cannot be tried on what was measured "
                                     "under one; leave out --policy, --compare and --html")  # fmt: skip
        source = context.get_parameter_source("config")  # FLYBALL_CONFIG may be set for other reasons
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"{trace} is a recording, and is decided again with the rules that it holds; "
                                     "leave out --config")  # fmt: skip
        _refuse_rungs(trace, ladder, rungs)
        _check(Path(trace), as_json)
        return
    _refuse_early(html_file, (Path(trace), rungs, config))
    found = _trace(trace, ladder, rungs)
    names = everything(found) if all_of_them else [policy]
    if policy not in names:
        names.insert(0, policy)
    with _Bar() as bar:
        compared = compare(found, names, configuration(config).governor, progress=bar.tell)
    if as_json:
        print_json({"trace": found.header, "periods": len(found.steps), "best_static": compared.best_static,
                    "scores": compared.scores, "changes": [_plain(run.changes) for run in compared.runs]})  # fmt: skip
    else:
        _head(found)
        names = [score.policy for score in compared.scores]
        if len(names) == 1:
            _side_by_side("policy", names, compared.scores)
        else:
            _table(names, compared.scores)
        if compared.best_static is not None:
            out.print(f"best static rung in hindsight: {compared.best_static.removeprefix('static:')}")
    _write_page(html_file, page(compared.runs, compared.scores), as_json)


def what_if(
    trace: Annotated[str, TraceArgument],
    deadline: Annotated[str, typer.Option(help="Answers within: 20ms, 0.1s.")] = "",
    ambient: Annotated[float | None, typer.Option(min=-40, max=90, help="Degrees Celsius, all the time.")] = None,
    power_cap: Annotated[str, typer.Option(help="Of the machine: 7W.")] = "",
    policy: Annotated[str, PolicyOption] = "governor",
    ladder: Annotated[str | None, LadderOption] = None,
    rungs: Annotated[Path | None, RungsOption] = None,
    html_file: Annotated[Path | None, HtmlOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Run a policy on a trace as it is and under other limits, side by side.

    Example: flyball what-if heat-ramp --deadline 20ms --ambient 45 --power-cap 7W
    """
    if not deadline and ambient is None and not power_cap:
        raise typer.BadParameter("expected at least one of --deadline, --ambient, --power-cap")
    if _is_recording(trace):
        raise typer.BadParameter(f"{trace} is a recording: what would have been measured under other limits is not "
                                 "known; take a trace (flyball replay --standard DIR writes some)")  # fmt: skip
    deadline_s = _quantity("--deadline", deadline, "s") if deadline else None
    cap_w = _quantity("--power-cap", power_cap, "W") if power_cap else None
    _refuse_early(html_file, (Path(trace), rungs, config))
    found = _trace(trace, ladder, rungs)
    other = changed(found, deadline_s, ambient, cap_w)
    rules = configuration(config).governor
    with _Bar() as bar:
        before = compare(found, [policy], rules, progress=lambda share: bar.tell(share / 2))
        after = compare(other, [policy], rules, progress=lambda share: bar.tell(0.5 + share / 2))
    wishes = [f"deadline {deadline}" if deadline else "", f"ambient {ambient:g} °C" if ambient is not None else "",
              f"power cap {power_cap}" if power_cap else ""]  # fmt: skip
    names = ("as it is", ", ".join(wish for wish in wishes if wish))
    scores = (*before.scores, *after.scores)
    if as_json:
        print_json({"trace": found.header, "before": before.scores[0], "after": after.scores[0],
                    "changed": {"deadline_s": deadline_s, "ambient_c": ambient, "power_cap_w": cap_w}})  # fmt: skip
    else:
        _head(found)
        _side_by_side(policy, names, scores)
    _write_page(html_file, page((*before.runs, *after.runs), scores, names), as_json)


# ---------------------------------------------------------------------------------------------------------- parts


def _is_recording(text: str) -> bool:
    return Path(text).is_file() and kind_of(Path(text)) == "recorded"


def _trace(text: str, ladder: str | None, rungs: Path | None) -> Trace:
    name, _, seed = text.partition(":")
    if name in standard.NAMES and not Path(text).exists():
        if seed and not seed.isdecimal():
            raise typer.BadParameter(f"{text}: expected a seed such as {name}:3")
        return standard.standard(name, ladder or _LADDER, _rungs(ladder, rungs), int(seed or 0))
    if not Path(text).exists():
        raise ConfigError(f"{text}: no such file, and no standard trace; those are {', '.join(standard.NAMES)}")
    _refuse_rungs(text, ladder, rungs)
    return load(Path(text))


def _refuse_rungs(file: str, ladder: str | None, rungs: Path | None) -> None:
    if ladder is not None or rungs is not None:
        raise typer.BadParameter(f"{file} has rungs of its own; --ladder and --rungs are for standard traces")


def _rungs(ladder: str | None, file: Path | None) -> tuple[Model, ...]:
    known = profiles.STAND_INS if file is None else profiles.measured(file)
    ladder = _LADDER if ladder is None else ladder
    if ladder not in known:
        raise typer.BadParameter(f"--ladder {ladder}: expected one of {', '.join(known)}")
    return known[ladder]


def _write_standard(folder: Path, ladder: str | None, rungs: Path | None, seed: int) -> None:
    models = _rungs(ladder, rungs)
    files = {name: folder / f"{name}.jsonl" for name in standard.NAMES}
    there = next((file for file in files.values() if os.path.lexists(file)), None)
    if there is not None:
        raise ConfigError(f"{there}: there is such a file already, and it is kept; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        try:
            save(standard.standard(name, ladder or _LADDER, models, seed), file)
        except OSError as error:
            raise _of(file, error) from None
        out.print(f"written: {file}", soft_wrap=True)


def _check(file: Path, as_json: bool) -> None:
    with _Bar() as bar:
        found = check(file, bar.tell)
    if as_json:
        print_json(_plain(found))
    else:
        _show_checked(found)
    if found.differs:
        raise typer.Exit(1)


def _show_checked(found: Checked) -> None:
    over = duration(found.seconds)
    verdict = f"{len(found.differs)} differ{'s' * (len(found.differs) == 1)}" if found.differs else "the same again"
    decisions, changes = _counted(found.decisions, "decision"), _counted(found.changes, "change")
    out.print(f"{decisions} in {over}, {changes} of rung: {verdict}", soft_wrap=True)
    if found.cut:
        out.print("the last line is not whole; it was left out")
    if found.ended:
        out.print(f"the recording ended because {legible(found.ended)}", soft_wrap=True)
    for differs in found.differs[:_SHOWN]:
        then, now = differs.recorded, differs.now
        ladder = legible(next(d.ladder for d in (then, now) if d is not None))
        out.print(Text.assemble((f"line {differs.line}, {ladder}: ", "bold"),
                                f"recorded {_told(then)}; now {_told(now)}"), soft_wrap=True)  # fmt: skip
    if len(found.differs) > _SHOWN:
        out.print(f"and {len(found.differs) - _SHOWN} more")


def _told(decision: Decision | None) -> str:
    if decision is None:
        return "nothing"
    return legible(f"{decision.action} {decision.source} -> {decision.target} ({decision.reason})")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _head(trace: Trace) -> None:
    header, limits = trace.header, trace.header.limits
    facts = [f"seed {header.seed}", f"{duration(trace.seconds)}", f"ladder {header.ladder}"]
    if limits.deadline_s is not None:
        facts.append(f"{limits.deadline_s * 1e3:.1f} ms for {limits.quantile:.0%}")
    out.print(Text.assemble((header.name, "bold"), f": {', '.join(facts)} (simulated)"), soft_wrap=True)
    if header.about:
        out.print(Text(header.about, "dim"), soft_wrap=True)


def _side_by_side(head: str, names: Sequence[str], scores: Sequence[Score]) -> None:
    """A line for each figure: one or two columns fit any terminal, a dozen do not."""
    cells = [row(score) for score in scores]
    print_table([f"!{head}", *(f">{name}" for name in names)], list(zip(HEADS, *cells, strict=True)))


def _table(names: Sequence[str], scores: Sequence[Score]) -> None:
    columns = [mark + head for mark, head in zip(_MARKS, ("policy", *HEADS), strict=True)]
    print_table(columns, [(name, *row(score)) for name, score in zip(names, scores, strict=True)])


def _plain(value: object) -> object:
    return msgspec.to_builtins(value)


def _quantity(option: str, text: str, unit: str) -> float:
    match = _NUMBER.match(text.strip())
    scales = _UNITS[unit]
    if match is None or match[2] not in scales:
        raise typer.BadParameter(f"{option}: expected {_EXAMPLES[unit]}, found {text!r}")
    value = float(match[1]) * scales[match[2]]
    if not _LEAST <= value <= _MOST:
        bounds = f"{_LEAST:g} to {_MOST:g} {unit}"
        raise typer.BadParameter(f"{option}: expected {bounds}, such as {_EXAMPLES[unit]}, found {text!r}")
    return value


def _refuse_early(file: Path | None, read: Sequence[Path | None]) -> None:
    """`read` are the files that go in, which a page would be written over."""
    if file is None:
        return
    if file.is_dir() or not os.access(file.absolute().parent, os.W_OK):
        raise typer.BadParameter(f"{file}: cannot be written: expected a file in a folder that is there and writable")
    if file.exists() and any(one is not None and one.exists() and file.samefile(one) for one in read):
        raise typer.BadParameter(f"--html {file}: is read here, and the page would be written over it; name another")


def _write_page(file: Path | None, text: str, quiet: bool) -> None:
    if file is not None:
        try:
            write(file, text.encode())
        except OSError as error:
            raise _of(file, error) from None
        (err if quiet else out).print(f"written: {file}", soft_wrap=True)


def _of(file: Path, error: OSError) -> OSError:
    """With the file that was meant, which errors of a full disk do not name."""
    return OSError(error.errno, error.strerror, str(file))


class _Bar:
    """On stderr, from the third second on."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._bar = Progress(TextColumn("replaying"), BarColumn(), TextColumn("{task.percentage:.0f} %"), console=err,
                             transient=True, auto_refresh=False, disable=not err.is_terminal)  # fmt: skip
        self._task = self._bar.add_task("", total=1.0)
        self._shown = False

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._shown:
            self._bar.stop()

    def tell(self, share: float) -> None:
        if not self._shown and time.monotonic() - self._began_s > _QUIET_S:
            self._shown = True
            self._bar.start()
        if self._shown:
            self._bar.update(self._task, completed=share, refresh=True)
