"""`flyball ladder`: from model files to a ladder, and ladders onto the machine."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.progress import Progress

from flyball.cli.terminal import (
    ConfigOption,
    JsonOption,
    SocketOption,
    client,
    configuration,
    err,
    mebibytes,
    milliseconds,
    out,
    percent,
    print_json,
    table,
)
from flyball.config import Engine
from flyball.engine.inspect import inspect
from flyball.errors import ControlError, FlyballError, LadderError
from flyball.ladder.draft import NORMALIZATIONS, DraftRequest, ModelFacts, Normalization, draft, guess_task, rung_name
from flyball.ladder.manifest import FILE_NAME, LadderFolder, load
from flyball.ladder.store import Store
from flyball.ladder.verify import verify_all
from flyball.measure.accuracy import Picture, accuracy, pictures
from flyball.measure.check import RungCheck, check

app = typer.Typer(no_args_is_help=True, help="Make, check and install ladders.")

Task = Literal["tensor", "image-classification"]
_TIMEOUT_S = 120.0


@app.command()
def new(
    models: Annotated[list[Path], typer.Argument(help=".onnx or .tflite files, the strongest first.")],
    name: Annotated[str, typer.Option(help="The ladder's name (default: the first model's).")] = "",
    place: Annotated[Path | None, typer.Option("--out", help="The folder to make (default: ./NAME).")] = None,
    task: Annotated[str, typer.Option(help="image-classification or tensor (default: guessed).")] = "",
    labels: Annotated[Path | None, typer.Option(help="Text file, one label a line, in the model's order.")] = None,
    normalize: Annotated[
        str, typer.Option(help=f"How float models want pixels: {', '.join(NORMALIZATIONS)}.")
    ] = "minus1-to-1",
    eval_dir: Annotated[
        Path | None, typer.Option("--eval", help="Labelled pictures (LABEL/*.jpg): measures accuracy and sorts by it.")
    ] = None,
) -> None:
    """Write a ladder from model files: hashes, shapes, quantization and steps come from the models themselves.

    Example: flyball ladder new big.tflite small.tflite --labels labels.txt
    """
    name = name or rung_name(models[0].name)
    place = place or Path(name)
    _refuse_early(models, labels, place, task, normalize, eval_dir)
    facts = asyncio.run(_inspect_all(models))
    chosen: Task = msgspec.convert(task or guess_task(facts[0], labels is not None), Task)
    lines = labels.read_text(encoding="utf-8").splitlines() if labels else []
    request = DraftRequest(
        name=name,
        version="1",
        task=chosen,
        models=tuple(facts),
        labels=labels.name if labels and chosen != "tensor" else "",
        label_count=len(lines),
        normalization=msgspec.convert(normalize, Normalization),
    )
    text = draft(request)
    place.mkdir(parents=True, exist_ok=True)
    for path in [*models, *([labels] if request.labels and labels else [])]:
        shutil.copyfile(path, place / path.name)
    (place / FILE_NAME).write_text(text, encoding="utf-8")
    folder = load(place)
    if eval_dir is not None:
        measured = asyncio.run(_accuracies(folder, pictures(eval_dir, folder.labels)))
        best_first = sorted(facts, key=lambda m: -measured.get(m.rung, -1.0))
        models_now = tuple(msgspec.structs.replace(m, accuracy=measured.get(m.rung)) for m in best_first)
        source = f"measured on the pictures in {eval_dir.name}"
        text = draft(msgspec.structs.replace(request, models=models_now, accuracy_source=source))
        (place / FILE_NAME).write_text(text, encoding="utf-8")
        folder = load(place)
    _show(folder)
    out.print(
        f"\nwritten: {place / FILE_NAME}\nnext:    flyball ladder check {place}\n         flyball run --ladder {place}"
    )


@app.command("check")
def check_(
    folder: Annotated[Path, typer.Argument(help="A ladder's folder.")],
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Validate a ladder: manifest, hashes, and every rung opened and warmed in a worker of its own."""
    ladder = load(folder)
    problems = verify_all(ladder)
    if problems:
        raise LadderError(f"the ladder in {folder} has {len(problems)} problem(s)", problems)
    checks = asyncio.run(_check_all(ladder))
    if as_json:
        print_json(checks)
    else:
        rows = [
            (c.rung, "[red]failed[/]" if c.error else "[green]ok[/]", milliseconds(c.load_s), milliseconds(c.p50_s),
             mebibytes(c.resident_bytes))
            for c in checks
        ]  # fmt: skip
        out.print(table(("rung", "", ">load ms", ">p50 ms", ">memory"), rows, f"{ladder.name} {ladder.version}"))
    failed = [c.error for c in checks if c.error]
    if failed:
        raise LadderError(f"{len(failed)} of {len(checks)} rungs cannot run here", failed)


@app.command()
def add(
    folder: Annotated[Path, typer.Argument(help="A ladder's folder.")],
    config: Annotated[Path | None, ConfigOption] = None,
    socket: Annotated[Path | None, SocketOption] = None,
) -> None:
    """Install a ladder; a running daemon puts it into service at once."""
    installed = Store(configuration(config).paths.ladders_dir()).add(folder)
    out.print(f"installed: {installed.name} {installed.version} in {installed.root}")
    _tell_daemon(socket, config)


@app.command()
def rm(
    name: Annotated[str, typer.Argument(help="An installed ladder.")],
    config: Annotated[Path | None, ConfigOption] = None,
    socket: Annotated[Path | None, SocketOption] = None,
) -> None:
    """Remove an installed ladder, all its versions."""
    Store(configuration(config).paths.ladders_dir()).remove(name)
    out.print(f"removed: {name}")
    _tell_daemon(socket, config)


@app.command()
def ls(config: Annotated[Path | None, ConfigOption] = None, as_json: Annotated[bool, JsonOption] = False) -> None:
    """List the installed ladders."""
    store = Store(configuration(config).paths.ladders_dir())
    folders = [load(path) for path in store.current().values()]
    if as_json:
        print_json([{"name": f.name, "version": f.version, "path": str(f.root)} for f in folders])
        return
    rows = [(f.name, f.version, f.manifest.ladder.task, str(len(f.manifest.rung)), str(f.root)) for f in folders]
    out.print(table(("ladder", "version", "task", ">rungs", "folder"), rows))


def _refuse_early(
    models: Sequence[Path], labels: Path | None, place: Path, task: str, normalize: str, eval_dir: Path | None
) -> None:
    problems = [f"{path}: no such file" for path in [*models, *([labels] if labels else [])] if not path.is_file()]
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        problems.append(f"{place}: exists and is not empty; name another folder with --out")
    if normalize not in NORMALIZATIONS:
        problems.append(f"--normalize: expected one of {', '.join(NORMALIZATIONS)}, found {normalize!r}")
    if task not in ("", "tensor", "image-classification"):
        problems.append(f"--task: expected image-classification or tensor, found {task!r}")
    if task == "image-classification" and labels is None:
        problems.append("--labels: missing; the task image-classification needs a file with one label a line")
    if eval_dir is not None and labels is None:
        problems.append("--eval: measuring accuracy needs --labels")
    if len({p.name for p in models}) < len(models):
        problems.append("two models have the same file name; rename one")
    if problems:
        raise LadderError("no ladder was written", problems)


async def _inspect_all(models: Sequence[Path]) -> list[ModelFacts]:
    problems, facts = [], []
    for path in models:
        try:
            facts.append(await inspect(path, _TIMEOUT_S))
        except FlyballError as error:
            problems.append(str(error))
    if problems:
        raise LadderError("no ladder was written", problems)
    return facts


async def _accuracies(folder: LadderFolder, images: Sequence[Picture]) -> dict[str, float]:
    shares: dict[str, float] = {}
    with Progress(console=err, transient=True) as bars:
        tasks = {}
        async for step in accuracy(folder, images):
            if step.rung not in tasks:
                tasks[step.rung] = bars.add_task(step.rung, total=step.total)
            bars.update(tasks[step.rung], completed=step.done)
            shares[step.rung] = step.right / step.done
    return shares


async def _check_all(ladder: LadderFolder) -> list[RungCheck]:
    with Progress(console=err, transient=True) as bars:
        task = bars.add_task("opening rungs", total=len(ladder.manifest.rung))
        checks = []
        async for result in check(ladder, Engine()):
            checks.append(result)
            bars.advance(task)
    return checks


def _show(folder: LadderFolder) -> None:
    rows = [
        (r.name, r.backend, r.precision, percent(r.accuracy), ", ".join(type(s).__name__.lower() for s in r.pre),
         ", ".join(type(s).__name__.lower() for s in r.post))
        for r in folder.manifest.rung
    ]  # fmt: skip
    columns = ("rung", "backend", "precision", ">accuracy", "pre", "post")
    out.print(table(columns, rows, f"{folder.name}: {folder.manifest.ladder.task}"))


def _tell_daemon(socket: Path | None, config: Path | None) -> None:
    try:
        report = client(socket, config).reload()
    except ControlError:
        out.print("the daemon is not running; it will be there at the next start")
        return
    for line in report.applied:
        out.print(f"daemon: {line}")
    if report.problems:
        raise LadderError("the daemon could not take all of it", report.problems)
