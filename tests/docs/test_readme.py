"""The README's five minutes, pasted as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def block(heading: str) -> str:
    section = (ROOT / "README.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    found = re.search(r"(?:^    .*\n)+", section, re.MULTILINE)
    assert found is not None
    return re.sub(r"^    ", "", found[0], flags=re.MULTILINE)


def test_a_model_of_ones_own_in_five_minutes(shared_data: Path, tmp_path: Path) -> None:
    models = shared_data / "models/imagenet"
    for name, target in {
        "big.tflite": models / "mobilenet_v1_0.5_160_quant.tflite",
        "small.tflite": models / "mobilenet_v1_0.25_128_quant.tflite",
        "labels.txt": models / "imagenet_labels.txt",
        "picture.jpg": shared_data / "images/parrot.jpg",
    }.items():
        (tmp_path / name).symlink_to(target)
    # The environment that runs this test stands for the one that `make demo` made.
    scripts = tmp_path / ".venv/bin"
    scripts.mkdir(parents=True)
    (scripts / "activate").write_text(f'PATH="{scripts}:$PATH"\n')
    (scripts / "flyball").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flyball "$@"\n')
    (scripts / "flyball").chmod(0o755)
    config = tmp_path / "flyball.toml"
    config.write_text(
        f'[paths]\nstate = "{tmp_path}/state"\nsocket = "{tmp_path}/s.sock"\n[serving]\nhttp = ""\nmetrics = ""\n'
    )
    script = f"set -e\n{block('Serve your own model in five minutes')}\nkill %1; wait %1\n"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        env={**os.environ, "PATH": "/usr/bin:/bin", "FLYBALL_CONFIG": str(config)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "macaw" in done.stdout.split("picture.jpg")[-1]
