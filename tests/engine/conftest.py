"""The faulty backend as an installed plug-in."""

from pathlib import Path

import pytest


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the faulty backend, as they find any installed plug-in."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "plugin"))
