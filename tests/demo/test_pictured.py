"""Which ladders the demonstration can use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from demo_command import demo

from flyball.demo.pictured import example_ladder, usable
from flyball.errors import LadderError
from flyball.ladder.manifest import load


def test_a_ladder_of_other_classes_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "other"
    shutil.copytree(example_ladder(), place)
    (place / "labels.txt").write_text("cat\ndog\nowl\nfox\ncow\nant\n")
    with pytest.raises(LadderError, match="expected image-classification with the labels ok, scratch"):
        usable(place)
    done = demo("--ladder", place)
    assert done.returncode == 78
    assert "the demonstration cannot use this ladder" in done.stderr


def test_the_example_is_of_this_installation() -> None:
    assert load(example_ladder()).name == "defects"
