"""What the demonstration's own daemon is started with, and what is told when it cannot serve."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo_command import demo

from flyball.config import load as load_config
from flyball.demo.pictured import example_ladder, usable
from flyball.demo.private_daemon import configuration, short_place


def test_paths_and_names_of_any_kind_reach_the_configuration(tmp_path: Path) -> None:
    place = tmp_path / 'a "quoted" \\ [place]'
    shutil.copytree(example_ladder(), place)
    manifest = place / "flyball-ladder.toml"
    manifest.write_text(manifest.read_text().replace('name = "defects"', 'name = "my.own"', 1))
    home = tmp_path / 'ho"me'
    home.mkdir()
    (home / "flyball.toml").write_text(configuration(home, usable(place)))
    config = load_config(home / "flyball.toml")
    assert {name: s.path for name, s in config.ladder.items()} == {"my.own": str(place)}
    assert config.paths.socket == str(home / "flyball.sock")


def test_a_ladder_that_does_not_open_is_told_at_once(tmp_path: Path) -> None:
    place = tmp_path / "broken"
    shutil.copytree(example_ladder(), place)
    for file in place.glob("*.onnx"):
        os.truncate(file, 100)
    started_s = time.monotonic()
    done = demo("--ladder", place)
    assert done.returncode == 78, done.stderr
    assert "the ladder cannot be served here" in done.stderr
    assert "expected sha256" in done.stderr
    assert time.monotonic() - started_s < 25


def test_a_long_tmpdir_makes_no_long_socket(tmp_path: Path) -> None:
    assert short_place() is None or len(tempfile.gettempdir()) > 60
    long = tmp_path / ("x" * 100)
    long.mkdir()
    code = "from flyball.demo.private_daemon import short_place; print(short_place())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "TMPDIR": str(long)},
    )
    assert done.stdout == "/tmp\n"
