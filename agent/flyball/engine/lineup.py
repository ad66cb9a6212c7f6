"""Which ladders should be in service, and what has to change for that.

configuration + store + folders named on the command line -> wanted folders -> difference to the catalog -> steps

A ladder's content decides, not its path: the same version at the same place is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball.errors import LadderError
from flyball.ladder.manifest import LadderFolder, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """The folders that could be read, by ladder name, and why others could not."""

    folders: Mapping[str, LadderFolder]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    load: tuple[LadderFolder, ...]
    remove: tuple[str, ...]


def read(installed: Mapping[str, Path], configured: Mapping[str, Path], named: Sequence[Path]) -> Lineup:
    """`installed` and `configured` are by name; a folder named on the command line wins over one that is configured,
    which wins over an installed one. A ladder whose files are wrong is a problem, and the others are read."""
    folders: dict[str, LadderFolder] = {}
    problems: list[str] = []
    for expected, path in [*installed.items(), *configured.items(), *((None, p) for p in named)]:
        try:
            folder = load(path.resolve())
        except LadderError as error:
            problems.append(str(error))
            continue
        if expected is not None and folder.name != expected:
            problems.append(f"{path}: expected the ladder {expected!r}, found {folder.name!r} in its manifest")
            continue
        folders[folder.name] = folder
    return Lineup(folders=folders, problems=tuple(problems))


def difference(
    wanted: Mapping[str, LadderFolder],
    present: Mapping[str, LadderFolder],
    failed: Collection[str],
    kept: Collection[str],
) -> Changes:
    """`failed` names those present that cannot answer: they are loaded again even if nothing of theirs has changed.
    `kept` names those that stay although they cannot be read at the moment: a broken copy must not end what serves."""
    return Changes(
        load=tuple(f for name, f in wanted.items() if f != present.get(name) or name in failed),
        remove=tuple(name for name in present if name not in wanted and name not in kept),
    )
