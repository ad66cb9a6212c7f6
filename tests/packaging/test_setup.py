"""packaging/setup.sh: what is missing is said in one line, and a made environment is left alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Just what the script looks at; nothing here can be installed."""
    (tmp_path / "packaging").mkdir()
    shutil.copy(ROOT / "packaging" / "setup.sh", tmp_path / "packaging")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def programs(folder: Path, **scripts: str) -> Path:
    """A folder of programs for PATH: the given scripts and the plain tools that the script under test uses."""
    folder.mkdir()
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    for tool in (
        "sh",
        "dirname",
        "basename",
        "cksum",
        "tr",
        "cat",
        "grep",
        "sed",
        "head",
        "tail",
        "mkdir",
        "rm",
        "uname",
    ):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return folder


def setup(checkout: Path, path: Path | None, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(path or os.environ["PATH"]), "HOME": str(checkout), "LANG": "C.UTF-8", **more}
    # The command -v of the script also looks into /usr/sbin, which is no matter for these cases.
    command = ["/bin/sh", "packaging/setup.sh", *arguments]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=120)


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    [line] = (done.stdout + done.stderr).splitlines()
    return line


UNPRIVILEGED = "echo 1000"


def test_missing_venv_module_names_the_package(checkout: Path, tmp_path: Path) -> None:
    python = f'case "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"'
    path = programs(tmp_path / "bin", python3=python, id=UNPRIVILEGED)
    line = only_line(setup(checkout, path, "run", PYTHON="python3"))
    assert line.startswith("flyball: python3 has no venv module: run  sudo apt-get install python3")


def test_old_python_is_told_with_what_was_found(checkout: Path, tmp_path: Path) -> None:
    old = 'case "$1" in -V) echo "Python 3.8.18";; *) echo 308;; esac'
    names = {f"python3.{minor}": old for minor in (13, 12, 11, 10)}
    path = programs(tmp_path / "bin", python3=old, id=UNPRIVILEGED, **names)
    script = checkout / "packaging" / "setup.sh"
    script.write_text(script.read_text().replace(" /usr/bin/python3; do", "; do"))  # this machine's own is new enough
    line = only_line(setup(checkout, path, "run"))
    assert "Python 3.10 or newer is needed, found Python 3.8.18" in line


def test_something_else_called_venv_is_not_removed(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "precious").write_text("mine")
    assert "in the way" in only_line(setup(checkout, None, "run"))
    assert (checkout / ".venv" / "precious").read_text() == "mine"


def test_unreachable_index_is_told_in_one_line(checkout: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1"}
    done = setup(checkout, None, "run", PYTHON=sys.executable, PIP_NO_CACHE_DIR="1", **nowhere)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("flyball: the Python package index cannot be reached")
    assert "Traceback" not in done.stdout + done.stderr


def test_missing_broker_is_an_error_only_where_it_is_required(checkout: Path, tmp_path: Path) -> None:
    script = checkout / "packaging" / "setup.sh"
    script.write_text(script.read_text().replace("PATH=$PATH:/usr/sbin:/usr/local/sbin", ":"))
    path = programs(tmp_path / "bin", id=UNPRIVILEGED)
    lenient = setup(checkout, path, "mosquitto")
    assert lenient.returncode == 0
    assert "broker tests are skipped; run  sudo apt-get install mosquitto" in lenient.stderr
    assert "sudo apt-get install mosquitto" in only_line(setup(checkout, path, "mosquitto", FLYBALL_REQUIRE_BROKER="1"))


def test_unknown_word_is_told(checkout: Path) -> None:
    assert "usage" in only_line(setup(checkout, None, "everything"))
