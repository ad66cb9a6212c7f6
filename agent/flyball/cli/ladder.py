"""`flyball ladder`: from model files to a ladder, and ladders onto the machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.progress import Progress
from rich.text import Text

from flyball.cli.terminal import (
    Cell,
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
    print_table,
)
from flyball.config import Engine, LadderName
from flyball.engine.inspect import inspect
from flyball.errors import ControlError, FlyballError, LadderError
from flyball.ladder.draft import NORMALIZATIONS, DraftRequest, ModelFacts, Normalization, draft, guess_task, rung_name
from flyball.ladder.manifest import FILE_NAME, LadderFolder, examine, load
from flyball.ladder.record import with_canaries
from flyball.ladder.store import Store
from flyball.measure.accuracy import Picture, accuracy, pictures
from flyball.measure.check import RungCheck, check, refusals

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
    problems: list[str] = []
    lines = _labels(labels, problems)
    _refuse_early(models, name, labels, place, task, normalize, eval_dir, problems)
    images = pictures(eval_dir, lines) if eval_dir is not None else []
    with _staged(place) as folder_now:
        facts = asyncio.run(_inspect_all(models))
        chosen: Task = msgspec.convert(task or guess_task(facts[0], labels is not None), Task)
        if images and chosen == "tensor":
            raise LadderError("no ladder was written", ["--eval: only for the task image-classification"])
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
        for path in [*models, *([labels] if request.labels and labels else [])]:
            shutil.copyfile(path, folder_now / path.name)
        (folder_now / FILE_NAME).write_text(text, encoding="utf-8")
        folder = load(folder_now)
        if eval_dir is not None:
            measured = asyncio.run(_accuracies(folder, images))
            best_first = sorted(facts, key=lambda m: -measured.get(m.rung, -1.0))
            models_now = tuple(msgspec.structs.replace(m, accuracy=measured.get(m.rung)) for m in best_first)
            source = f"measured on the pictures in {eval_dir.name}"
            text = draft(msgspec.structs.replace(request, models=models_now, accuracy_source=source))
            (folder_now / FILE_NAME).write_text(text, encoding="utf-8")
            folder = load(folder_now)
    _show(folder)
    pasted = shlex.quote(str(place))
    out.print(f"\nwritten: {place / FILE_NAME}", soft_wrap=True)
    out.print(f"next:    flyball ladder check {pasted}\n         flyball run --ladder {pasted}", soft_wrap=True)


@app.command("check")
def check_(
    folder: Annotated[Path, typer.Argument(help="A ladder's folder.")],
    as_json: Annotated[bool, JsonOption] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Write each rung's answer to its canary into the manifest: the right one.")
    ] = False,
) -> None:
    """Validate a ladder: manifest, hashes, and every rung opened, warmed and compared in a worker of its own."""
    found = examine(folder)
    if found.folder is None:
        # The backends are asked all the same: a mistake in the manifest must not hide those of its options.
        problems = [*found.problems, *asyncio.run(refusals(folder, found.rungs, Engine()))]
        raise LadderError(f"the ladder in {folder} has {len(problems)} problem(s)", problems)
    ladder = found.folder
    checks = asyncio.run(_check_all(ladder))
    if record:
        file = ladder.root / FILE_NAME
        samples = {c.rung: c.sample for c in checks if not c.error}
        file.write_text(with_canaries(file.read_text(encoding="utf-8"), samples), encoding="utf-8")
    if as_json:
        print_json(checks)
    else:
        rows: list[tuple[Cell, ...]] = [
            (c.rung, Text("failed", "red") if c.error else Text("ok", "green"), milliseconds(c.load_s),
             milliseconds(c.p50_s), mebibytes(c.resident_bytes))
            for c in checks
        ]  # fmt: skip
        print_table(("!rung", "", "?>load ms", ">p50 ms", "?>memory"), rows, f"{ladder.name} {ladder.version}")
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
    out.print(f"installed: {installed.name} {installed.version} in {installed.root}", soft_wrap=True)
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
    """List the installed ladders. Exit code 78 when one of them is damaged; the others are listed all the same."""
    store = Store(configuration(config).paths.ladders_dir())
    listed: list[dict[str, Any]] = []
    rows: list[tuple[Cell, ...]] = []
    problems: list[str] = []
    for name in store.names():
        try:
            f = store.open(name)
        except LadderError as error:
            problems.append(str(error).replace("\n", "\n  "))
            listed.append({"name": name, "error": str(error)})
            rows.append((name, "-", Text("damaged", "red"), "-", "-"))
        else:
            listed.append({"name": f.name, "version": f.version, "path": str(f.root)})
            rows.append((f.name, f.version, f.manifest.ladder.task, str(len(f.manifest.rung)), str(f.root)))
    if as_json:
        print_json(listed)
    else:
        print_table(("!ladder", "version", "?task", "?>rungs", "!folder"), rows)
    if problems:
        raise LadderError(f"{len(problems)} of {len(rows)} installed ladders are damaged", problems)


def _labels(file: Path | None, problems: list[str]) -> list[str]:
    """As the manifest's loader will read them."""
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        problems.append(f"--labels {file}: cannot be read: {error.strerror}")
        return []
    except UnicodeDecodeError as error:
        problems.append(f"--labels {file}: not UTF-8 text (byte {error.start})")
        return []
    if not lines:
        problems.append(f"--labels {file}: the file is empty; expected one label a line")
    return lines


def _refuse_early(
    models: Sequence[Path],
    name: str,
    labels: Path | None,
    place: Path,
    task: str,
    normalize: str,
    eval_dir: Path | None,
    problems: list[str],
) -> None:
    """Whatever can be known before a model is opened, in the words of the command line."""
    problems += [f"{path}: no such file" for path in models if not path.is_file()]
    try:
        msgspec.convert(name, LadderName)
    except msgspec.ValidationError:
        problems.append(f"--name: expected 1 to 64 letters, digits, '.', '_' or '-', found {name!r}")
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
    files = [FILE_NAME, *(p.name for p in models), *([labels.name] if labels else [])]
    if len(set(files)) < len(files):
        problems.append("two of the files would have the same name in the folder; rename one")
    rungs = [rung_name(p.name) for p in models]
    for rung in sorted({r for r in rungs if rungs.count(r) > 1}):
        problems.append(
            f"two models would be the rung {rung!r}, which is the file's name without its ending; rename one"
        )
    if problems:
        raise LadderError("no ladder was written", problems)


@contextlib.contextmanager
def _staged(place: Path) -> Iterator[Path]:
    """A folder whose files are at `place` once all went well; else nothing is left anywhere. Made before the work
    begins, so that a place where nothing can be written is told at once. Raises LadderError."""
    there = place.is_dir()  # and empty: it may be a mount point, so it is filled, not replaced
    above = place if there else next(p for p in place.absolute().parents if p.exists())
    staged: Path | None = None
    try:
        staged = Path(tempfile.mkdtemp(prefix=".flyball-new-", dir=above))
        mask = os.umask(0)
        os.umask(mask)
        staged.chmod(0o777 & ~mask)  # mkdtemp's own would keep others out
        yield staged
        if there:
            for file in sorted(staged.iterdir(), key=lambda f: f.name == FILE_NAME):  # the manifest last
                file.rename(place / file.name)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            staged.rename(place)
    except OSError as error:
        raise LadderError("no ladder was written", [_refused(error, place, staged)]) from None
    finally:
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)


def _refused(error: OSError, place: Path, staged: Path | None) -> str:
    """In the user's words: the folder at work on is one that nobody named."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    own = staged is None or not names or any(str(staged) in name for name in names)
    return f"{place}: cannot be written: {error.strerror}" if own else f"{names[0]}: {error.strerror}"


async def _inspect_all(models: Sequence[Path]) -> list[ModelFacts]:
    problems, facts = [], []
    for path in models:
        try:
            facts.append(await inspect(path, _TIMEOUT_S))
        except FlyballError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}")
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
    columns = ("!rung", "backend", "?precision", "?>accuracy", "?pre", "?post")
    print_table(columns, rows, f"{folder.name}: {folder.manifest.ladder.task}")


def _tell_daemon(socket: Path | None, config: Path | None) -> None:
    try:
        report = client(socket, config).reload()
    except ControlError:
        out.print("the daemon is not running; it will be there at the next start")
        return
    for line in report.applied:
        out.print(f"daemon: {line}", soft_wrap=True)
    if report.problems:
        raise LadderError("the daemon could not take all of it", report.problems)
