"""The examples in docs/serving.md work as they stand there, but for ports and paths."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from served import IMAGE, Served, World, scored

from flyball.client import Client
from flyball.testing import FakeLadder

DOCS = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_there_are_examples_of_both_kinds() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}


@pytest.mark.parametrize(("kind", "text"), BLOCKS)
def test_an_example(world: World, serve: Callable[..., Served], tmp_path: Path, kind: str, text: str) -> None:
    if kind == "sh" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    world.ladders = [FakeLadder("defects", "1", IMAGE, scored)]
    served = serve()
    (tmp_path / "part.jpg").write_bytes(b"\xff\xd8 picture")
    for default, real in (
        ("127.0.0.1:8000", f"127.0.0.1:{served.port}"),
        ("127.0.0.1:8002", f"127.0.0.1:{served.metrics_port}"),
        ("/run/flyball/flyball.sock", str(served.path)),
    ):
        text = text.replace(default, real)
    command = ["sh", "-c", text.replace("curl ", "curl --fail ")] if kind == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout or (tmp_path / "answer.bin").read_bytes().endswith(b"dog")


def test_every_documented_endpoint_is_there(served: Served) -> None:
    text = DOCS.read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(GET|POST) ([^`?]+)", text, re.MULTILINE)
    assert len(listed) == 17
    client = Client(served.path, timeout_s=10)
    for method, path in listed:
        real = path.replace("NAME", "echo")
        client._connection.request(method, real, b"{}" if method == "POST" else None)
        response = client._connection.getresponse()
        response.read()
        assert response.status in (200, 400), f"{method} {path}: {response.status}"
    client.close()
