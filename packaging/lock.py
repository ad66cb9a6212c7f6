"""Writes packaging/requirements-amd64.txt: every wheel of the Debian package, pinned by version and hash.

pyproject.toml's dependencies and extras -> pip's own resolver (dry run, report) -> `name==version --hash=sha256:...`

Run by hand when dependencies change: `.venv/bin/python packaging/lock.py`, look at the difference, commit. Never run
by a build: a build takes exactly what the committed file says.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("onnx", "litert")
# manylinux tags that Debian 12 (glibc 2.36) can run, newest first.
GLIBC_TAGS = ("2_36", "2_35", "2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def platform_options(architecture: str, python: str) -> list[str]:
    """pip's options that choose wheels for the package's target instead of this interpreter."""
    machine = MACHINES[architecture]
    tags = [f"manylinux_{tag}_{machine}" for tag in GLIBC_TAGS] + [f"manylinux2014_{machine}"]
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    options += [f"--abi=cp{python.replace('.', '')}", "--abi=abi3", "--abi=none"]
    return options + [f"--platform={tag}" for tag in tags]


def wanted(pyproject: Path) -> list[str]:
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]


def resolve(requirements: list[str], architecture: str, python: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += [f"--report={report}", f"--target={folder}/target", *platform_options(architecture, python)]
        subprocess.run([*command, *requirements], check=True)
        items: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return items


def lines(items: list[dict[str, Any]]) -> list[str]:
    result = []
    for item in items:
        name, version = item["metadata"]["name"].lower().replace("_", "-"), item["metadata"]["version"]
        hashes = item["download_info"]["archive_info"].get("hashes", {})
        if "sha256" not in hashes:
            raise SystemExit(f"{name} {version}: expected a sha256 from the package index, found {sorted(hashes)}")
        result.append(f"{name}=={version} --hash=sha256:{hashes['sha256']}")
    return sorted(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--architecture", choices=sorted(MACHINES), default="amd64")
    parser.add_argument("--python", default="3.11", help="minor version of the target's python3 (default %(default)s)")
    options = parser.parse_args()
    if f"{sys.version_info[0]}.{sys.version_info[1]}" != options.python or sys.platform != "linux":
        raise SystemExit(  # pip evaluates markers such as `python_version < "3.11"` for the interpreter that runs it
            f"run this with Python {options.python} on Linux, found {sys.version.split()[0]} on {sys.platform}"
        )
    found = lines(resolve(wanted(ROOT / "pyproject.toml"), options.architecture, options.python))
    target = ROOT / "packaging" / f"requirements-{options.architecture}.txt"
    header = [
        f"# Wheels of the Debian package for {options.architecture}, Python {options.python}.",
        "# Made by packaging/lock.py from pyproject.toml; not edited by hand.",
    ]
    target.write_text("\n".join([*header, *found]) + "\n", encoding="utf-8")
    print(f"{target.relative_to(ROOT)}: {len(found)} wheels")


if __name__ == "__main__":
    main()
