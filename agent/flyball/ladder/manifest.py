"""A ladder's manifest: flyball-ladder.toml and the labels beside it, as frozen values.

folder -> document.decode -> Manifest -> checks across keys -> LadderFolder, or one LadderError with every problem

Reads text files only; artifacts are hashed in verify.py and opened in workers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from flyball.config import LadderName
from flyball.document import decode, read_toml
from flyball.errors import LadderError
from flyball.ladder.steps import Layout, PostStep, PreStep, Resize
from flyball.ports import Interface, PublicTensor

FILE_NAME = "flyball-ladder.toml"
MAX_TENSORS = 16  # what a slot's header has room for (engine/slots.py)

S = TypeVar("S", bound=msgspec.Struct)
Fraction = Annotated[float, Meta(ge=0, le=1)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="64 hexadecimal digits (sha256sum)")]
Version = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}\Z", description="1 to 64 letters, digits or '_.+-'")
]
Task = Literal["tensor", "image-classification"]
# The Open Inference Protocol's names of what NumPy calls bool, uint8, ... and can be computed with.
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"
]  # fmt: skip
Dimension = Annotated[int, Meta(ge=-1)]


class LadderTable(msgspec.Struct, frozen=True, kw_only=True):
    name: LadderName
    version: Version
    task: Task
    labels: str = ""
    top_k: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    max_input_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 16 << 20
    max_output_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 4 << 20
    max_pixels: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 50_000_000  # of an encoded image, before decoding
    accuracy_floor: Fraction | None = None
    accuracy_source: str = ""


class TensorTable(msgspec.Struct, frozen=True, kw_only=True):
    """A declared tensor of the task `tensor`."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    datatype: Datatype
    shape: Annotated[tuple[Dimension, ...], Meta(max_length=8)]


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One variant. `input`/`output` name the artifact's tensors where it has several; `twin` the rung that answers
    while this one's accelerator is away. `batch` > 1: so many requests share one run (the artifact's first size must be
    free), and the first of them waits up to `batch_delay_ms` for the others. `instances`: workers that open it.
    `canary`: a sample of its answer to the built-in canary input (engine/canary.py), written by
    `flyball ladder check --record`."""

    name: LadderName
    backend: LadderName
    artifact: str
    sha256: Sha256
    precision: str = ""
    accuracy: Fraction | None = None
    accelerators: Annotated[tuple[str, ...], Meta(min_length=1)] = ("cpu",)
    twin: str = ""
    input: str = ""
    output: str = ""
    batch: Annotated[int, Meta(ge=1, le=64)] = 1
    batch_delay_ms: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    instances: Annotated[int, Meta(ge=1, le=16)] = 1
    canary: tuple[tuple[float, ...], ...] = ()
    options: dict[str, str | int | float | bool] = {}
    pre: tuple[PreStep, ...] = ()
    post: tuple[PostStep, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    schema: Literal[1]
    ladder: LadderTable
    rung: tuple[Rung, ...]
    input: tuple[TensorTable, ...] = ()
    output: tuple[TensorTable, ...] = ()


class LadderFolder(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest, where it lies, and its labels."""

    root: Path
    manifest: Manifest
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.manifest.ladder.name

    @property
    def version(self) -> str:
        return self.manifest.ladder.version

    def rung(self, name: str) -> Rung | None:
        return next((r for r in self.manifest.rung if r.name == name), None)

    def artifact(self, rung: Rung) -> Path:
        return self.root / rung.artifact

    def top_k(self) -> int:
        return self.manifest.ladder.top_k or min(5, len(self.labels))

    def interface(self) -> Interface:
        """The public interface, the same for every rung."""
        if self.manifest.ladder.task == "tensor":
            return Interface(
                task="tensor",
                inputs=tuple(
                    PublicTensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in self.manifest.input
                ),
                outputs=tuple(
                    PublicTensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in self.manifest.output
                ),
            )
        k = self.top_k()
        image = PublicTensor(name="image", datatype="UINT8", shape=(-1, -1, 3), alternative=("BYTES", (1,)))
        return Interface(
            task="image-classification",
            inputs=(image,),
            outputs=(
                PublicTensor(name="scores", datatype="FP32", shape=(k,)),
                PublicTensor(name="labels", datatype="BYTES", shape=(k,)),
            ),
        )


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What the text files of a ladder show. `folder` is None when there are problems; `rungs` are those that could be
    read even so, for whoever looks further."""

    folder: LadderFolder | None
    rungs: tuple[Rung, ...]
    problems: tuple[str, ...]


def load(root: Path) -> LadderFolder:
    """The ladder in the folder `root`. Raises LadderError with every problem that the text files show."""
    found = examine(root)
    if found.folder is None:
        raise LadderError(f"the ladder in {root} has {len(found.problems)} problem(s)", found.problems)
    return found.folder


def examine(root: Path) -> Findings:
    """Never stops at the first mistake: what could be decoded is checked across its keys whatever is wrong elsewhere,
    so that nobody has to correct a manifest once for every kind of check."""
    file = root / FILE_NAME
    problems: list[str] = []
    data: dict[str, Any] = {}
    if root.is_dir():
        data = read_toml(file, problems)
    else:
        problems.append(f"{root}: not a folder; a ladder is a folder with a {FILE_NAME}")
    if problems:
        return Findings(folder=None, rungs=(), problems=tuple(problems))
    manifest = decode(data, Manifest, str(file), problems)
    ladder = manifest.ladder if manifest else _alone(data.get("ladder"), LadderTable)
    rungs = dict(enumerate(manifest.rung)) if manifest else _rungs_alone(data.get("rung"))
    labels: tuple[str, ...] = ()
    if ladder is not None:
        labels = _labels(root, ladder, problems)
    if manifest is not None:
        problems += [f"{file}: {p}" for p in _across_keys(manifest, len(labels))]
    names = _names(data.get("rung"))
    problems += [f"{file}: rung: the name {n!r} stands twice" for n in _doubles(names)]
    task = ladder.task if ladder is not None else None
    problems += [f"{file}: rung[{i}].{p}" for i, r in rungs.items() for p in _rung(root, r, names, task)]
    folder = None
    if manifest is not None and not problems:
        folder = LadderFolder(root=root, manifest=manifest, labels=labels)
    return Findings(folder=folder, rungs=tuple(rungs.values()), problems=tuple(problems))


def _alone(raw: Any, kind: type[S]) -> S | None:
    """A part of a manifest that has mistakes, if the part itself has none; they have been told."""
    return decode(raw, kind, "", []) if isinstance(raw, dict) else None


def _rungs_alone(raw: Any) -> dict[int, Rung]:
    parts = {i: _alone(part, Rung) for i, part in enumerate(raw)} if isinstance(raw, list) else {}
    return {i: rung for i, rung in parts.items() if rung is not None}


def _names(raw: Any) -> list[str]:
    """Of all rungs, also of those that have mistakes."""
    return [str(r["name"]) for r in raw if isinstance(r, dict) and "name" in r] if isinstance(raw, list) else []


def _labels(root: Path, ladder: LadderTable, problems: list[str]) -> tuple[str, ...]:
    if not ladder.labels:
        if ladder.task == "image-classification":
            problems.append(f"{root / FILE_NAME}: ladder.labels: missing; a text file with one label a line")
        return ()
    if not _inside(ladder.labels):
        problems.append(f"{root / FILE_NAME}: ladder.labels: expected a file in the folder, found {ladder.labels!r}")
        return ()
    path = root / ladder.labels
    try:
        labels = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: ladder.labels: cannot be read as UTF-8 text: {error}")
        return ()
    if not labels:
        problems.append(f"{path}: ladder.labels: the file is empty; expected one label a line")
    return labels


def _across_keys(manifest: Manifest, labels: int) -> list[str]:
    ladder, problems = manifest.ladder, []
    if not manifest.rung:
        problems.append("rung: expected at least one [[rung]], found none")
    if ladder.task == "tensor":
        if not manifest.input or not manifest.output:
            problems.append("input, output: the task 'tensor' declares its tensors in [[input]] and [[output]]")
        for key in ("top_k", "labels"):
            if getattr(ladder, key):
                problems.append(f"ladder.{key}: only for the task 'image-classification'")
    else:
        if manifest.input or manifest.output:
            problems.append("input, output: only for the task 'tensor'; this task's tensors are fixed")
        if ladder.top_k and labels and ladder.top_k > labels:
            problems.append(f"ladder.top_k: expected at most {labels} (the number of labels), found {ladder.top_k}")
    for key, tensors in (("input", manifest.input), ("output", manifest.output)):
        if len(tensors) > MAX_TENSORS:
            problems.append(f"{key}: expected at most {MAX_TENSORS} tensors, found {len(tensors)}")
        problems += [f"{key}: the name {n!r} stands twice" for n in _doubles([t.name for t in tensors])]
    floor = ladder.accuracy_floor
    known = [r.accuracy for r in manifest.rung if r.accuracy is not None]
    if floor is not None and known and max(known) < floor:
        problems.append(f"ladder.accuracy_floor: {floor} is above every rung's accuracy (best: {max(known)})")
    return problems


def _rung(root: Path, rung: Rung, names: Sequence[str], task: Task | None) -> list[str]:
    problems = []
    if not _inside(rung.artifact):
        problems.append(f"artifact: expected a file inside the folder, found {rung.artifact!r}")
    elif not (root / rung.artifact).is_file():
        problems.append(f"artifact: no such file: {root / rung.artifact}")
    if rung.twin and (rung.twin == rung.name or rung.twin not in names):
        problems.append(f"twin: expected another rung's name, found {rung.twin!r}")
    for key in [k for k, v in rung.options.items() if isinstance(v, float) and not math.isfinite(v)]:
        problems.append(f"options.{key}: expected a finite number")
    if task is None:  # it could not be read
        return problems
    if task == "image-classification":
        kinds = [type(s) for s in rung.pre]
        if Resize not in kinds:
            problems.append("pre: an image of any size needs a `resize` step to the artifact's size")
        if Layout not in kinds:
            problems.append("pre: needs a `layout` step (NHWC or NCHW), which adds the batch dimension")
        elif Resize in kinds and kinds.index(Layout) < kinds.index(Resize):
            problems.append("pre: `layout` stands before `resize`; images are resized first")
    elif any(isinstance(s, Resize | Layout) for s in rung.pre):
        problems.append("pre: `resize` and `layout` are for image tasks")
    return problems


def _inside(path: str) -> bool:
    """A relative path that cannot leave its folder by its own words (symbolic links are verify.py's concern)."""
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\0" not in path


def _doubles(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
