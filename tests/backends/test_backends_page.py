"""docs/backends.md: its example is a working plug-in, and its tables are complete."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flyball_backends.registry import find

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = (Path(__file__).resolve().parents[2] / "docs/backends.md").read_text(encoding="utf-8")


def write_example(folder: Path) -> None:
    """Every code block under the file name in its first line, and what an installer would make of pyproject.toml."""
    for name, text in re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(text, encoding="utf-8")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    installed = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines))


def test_the_example_passes_its_own_tests(tmp_path: Path) -> None:
    write_example(tmp_path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("name", ["onnx", "litert", "edgetpu"])
def test_every_option_is_in_the_table(name: str) -> None:
    rows = set(re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\S+) \|", PAGE, re.MULTILINE))
    expected = {(name, f.name, json.dumps(f.default)) for f in dataclasses.fields(find(name).Options)}
    assert expected == {row for row in rows if row[0] == name}
