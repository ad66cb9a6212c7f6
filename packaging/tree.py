"""Unpacks the package's wheels: tree.py REQUIREMENTS PROJECT SITE-PACKAGES ARCHITECTURE PYTHON

pinned wheels (hashes checked by pip) + Flyball's own wheel -> one folder -> trimmed, without traces of this machine

Never compiles, never takes a wheel whose hash is not in REQUIREMENTS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lock import platform_options

# Written by pip about this machine and this installation; nothing reads them in a package.
TRACES = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments], check=True)


def unpack(requirements: Path, project: Path, target: Path, architecture: str, python: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip("wheel", "--no-deps", f"--wheel-dir={folder}", str(project))
        own = [str(path) for path in Path(folder).glob("flyball-*.whl")]
        common = ["install", "--no-deps", "--no-compile", "--no-warn-conflicts", f"--target={target}"]
        pip(*common, "--require-hashes", *platform_options(architecture, python), "-r", str(requirements))
        # A second --target run would refuse to merge bin/: Flyball's wheel goes beside and is moved in.
        pip(*common[:-1], f"--target={folder}/own", *own)
        for entry in Path(folder, "own").iterdir():
            if entry.name != "bin":
                shutil.move(str(entry), target / entry.name)


def trim(target: Path, patterns: Path) -> int:
    """Removes what the patterns match and returns the bytes saved; a pattern without a match is an error."""
    saved = 0
    for line in patterns.read_text(encoding="utf-8").splitlines():
        pattern = line.split("#", 1)[0].strip()
        if not pattern:
            continue
        matches = list(target.glob(pattern))
        if not matches:
            raise SystemExit(f"{patterns.name}: {pattern!r} matches nothing in the wheels: correct or remove the line")
        for match in matches:
            if match.is_dir():
                saved += sum(f.stat().st_size for f in match.rglob("*") if f.is_file())
                shutil.rmtree(match)
            elif match.exists():
                saved += match.stat().st_size
                match.unlink()
    return saved


def clean(target: Path) -> None:
    for info in target.glob("*.dist-info"):
        for name in TRACES:
            (info / name).unlink(missing_ok=True)
    for path in target.rglob("*"):
        if path.is_symlink():
            raise SystemExit(f"{path}: expected files and folders only, found a symbolic link")
        os.chmod(path, 0o755 if path.is_dir() else 0o644)


def main(argv: list[str]) -> None:
    if len(argv) != 6:
        raise SystemExit("usage: tree.py REQUIREMENTS PROJECT SITE-PACKAGES ARCHITECTURE PYTHON")
    requirements, project, target = (Path(a).resolve() for a in argv[1:4])
    unpack(requirements, project, target, argv[4], argv[5])
    saved = trim(target, Path(__file__).with_name("trim.txt"))
    clean(target)
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
    print(f"flyball: {size / 1e6:.0f} MB of wheels ({saved / 1e6:.0f} MB left out)")


if __name__ == "__main__":
    main(sys.argv)
