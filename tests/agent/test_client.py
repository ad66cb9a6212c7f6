"""The client's own checks; what it does over a real socket is in tests/serving/test_control.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flyball.client import Client
from flyball.errors import NotFoundError
from flyball.ports import Tensor

CALLS: list[Callable[[Client, str], object]] = [
    lambda client, name: client.interface(name),
    lambda client, name: client.switch(name, "auto"),
    lambda client, name: client.decisions(name),
    lambda client, name: client.infer(name, (Tensor("x", "FP32", (0,), b""),)),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["a/b", "..", "", "a b", "a%2Fb", "a\nb", "x" * 65, "ladder?x=1", "\udcff"])
def test_what_can_be_no_ladder_is_never_asked_for(
    tmp_path: Path, name: str, call: Callable[[Client, str], object]
) -> None:
    """There is no daemon at all: it is refused before anybody is asked."""
    with Client(tmp_path / "none.sock") as client, pytest.raises(NotFoundError, match="is no name of a ladder"):
        call(client, name)
