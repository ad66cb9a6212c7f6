"""The ladder of the demonstration: the example's, or another one that can judge the same pictures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flyball.demo.surface import CLASSES
from flyball.errors import LadderError
from flyball.ladder.manifest import FILE_NAME, LadderFolder, load


def example_ladder() -> Path:
    """The ladder that came with this installation. Raises LadderError."""
    here = Path(__file__).resolve()
    places = [
        here.parents[3] / "examples/defects/ladder",  # a checkout
        Path(sys.prefix) / "share/flyball/examples/defects",
        Path("/usr/share/flyball/examples/defects"),  # the Debian package
    ]
    for place in places:
        if (place / FILE_NAME).is_file():
            return place
    raise LadderError("the example ladder was not found; name one with --ladder", [str(p) for p in places])


def usable(place: Path) -> LadderFolder:
    """The ladder in a folder, if the pictures of the demonstration can be judged by it. Raises LadderError."""
    folder = load(place)
    problems = []
    if folder.manifest.ladder.task != "image-classification" or set(folder.labels) != set(CLASSES):
        problems.append(f"{place}: expected image-classification with the labels {', '.join(CLASSES)}")
    try:
        os.fspath(place.resolve()).encode()
    except UnicodeEncodeError:
        problems.append(f"{os.fspath(place)!r}: the path is not UTF-8 text, which a configuration has to be")
    if problems:
        raise LadderError("the demonstration cannot use this ladder", problems)
    return folder
