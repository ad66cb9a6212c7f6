"""Flyball's sensors on a board with real drivers, from this checkout: `sensors_on_board.py ssh://root@board:2201`.

wheels, checks.py, daemon_check.py, capture.py -> ssh -> a scratch folder of the board -> transcript, exit code

Installs into the scratch folder, offline, and removes it at the end. README.md says what board is expected.
"""

from __future__ import annotations

import argparse
import datetime
import io
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from target import parse  # noqa: E402  the suite's own modules lie beside this folder
from targets import SshTarget  # noqa: E402

OWN = [HERE / f"{name}.py" for name in ("board", "transcript", "checks", "daemon_check")] + [HERE.parent / "capture.py"]
INSTALL_S, CHECKS_S = 900.0, 600.0


def packed(files: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in files:
            archive.add(file, arcname=file.name)
    return buffer.getvalue()


def run(target: SshTarget, wheels: list[Path], ladder: Path | None) -> tuple[str, int]:
    """The transcript and the exit code. Raises AssertionError when a step before the checks fails."""
    facts = target.facts().values
    head = [
        f"{key}: {facts[key]}" for key in ("os", "kernel", "machine", "board", "cores", "memory_kib") if key in facts
    ]
    archive = target.put(packed([*wheels, *OWN]), "files.tar")
    folder = archive.rpartition("/")[0]
    python = f"{folder}/venv/bin/python"
    extra = "flyball[onnx]" if ladder else "flyball"
    target.run(["tar", "-xf", archive, "-C", folder]).checked()
    target.run(["python3", "-m", "venv", f"{folder}/venv"], timeout_s=INSTALL_S).checked()
    install = [python, "-m", "pip", "install", "-q", "--no-index", "--find-links", folder, extra]
    target.run(install, timeout_s=INSTALL_S).checked()
    parts = [f"{folder}/checks.py"]
    if ladder:
        there = target.put(packed([ladder]), "ladder.tar")
        target.run(["tar", "-xf", there, "-C", folder]).checked()
        parts.append(f"{folder}/daemon_check.py {folder}/{ladder.name}")
    text, code = "", 0
    for part in parts:
        done = target.run(["sh", "-c", f"{python} {part} 2>&1"], timeout_s=CHECKS_S)
        text, code = text + done.stdout + done.stderr, code or done.code
    return "\n".join(head) + "\n" + text, code


def main() -> int:
    parser = argparse.ArgumentParser(description="Run Flyball's sensors against the drivers of a board.")
    parser.add_argument("target", help="ssh://root@host[:port]; FLYBALL_HIL_SSH_OPTIONS adds options, such as -i KEY")
    parser.add_argument("--wheels", type=Path, required=True, metavar="DIR", help="Flyball's wheel and what it needs")
    parser.add_argument(
        "--ladder", type=Path, metavar="DIR", help="let the daemon serve it too, and look at its readings"
    )
    parser.add_argument("--transcript", type=Path, metavar="FILE", help="write what was seen here as well")
    arguments = parser.parse_args()
    try:
        address = parse(arguments.target)
    except ValueError as error:
        parser.error(str(error).replace("--target", "target"))
    if address is None:
        parser.error("target: the checks change a board's drivers; give ssh://user@host[:port]")
    wheels = sorted(arguments.wheels.glob("*.whl"))
    if not any(wheel.name.startswith("flyball-") for wheel in wheels):
        parser.error(f"--wheels: no flyball-*.whl in {arguments.wheels}; run: pip wheel --wheel-dir DIR .")
    if arguments.ladder and not (arguments.ladder / "flyball-ladder.toml").exists():
        parser.error(f"--ladder: {arguments.ladder} has no flyball-ladder.toml")
    try:
        target = SshTarget(address)
        try:
            text, code = run(target, wheels, arguments.ladder)
        finally:
            target.close()
    except AssertionError as error:
        sys.exit(f"the board could not be prepared: {error}")
    text = f"date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC\n{text}"
    print(text, end="")
    if arguments.transcript:
        arguments.transcript.write_text(text, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
