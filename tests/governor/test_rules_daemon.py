"""The daemon takes no rule that it cannot read: not at its start, and not at a reload."""

import asyncio
from pathlib import Path

import pytest

from flyball.daemon import Daemon
from flyball.errors import ConfigError

GOOD = '[governor]\nrules = ["when throttled then hold"]\n'
BAD = '[governor]\nrules = ["when throttled then hold", "when cpu > 80 then hold"]\n'


def configuration(folder: Path, text: str) -> Path:
    path = folder / "flyball.toml"
    path.write_text(f'{text}[paths]\nstate = "{folder}"\n')
    return path


def test_a_daemon_does_not_start_with_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"governor\.rules\[1\]: column 12: "):
        Daemon(configuration(tmp_path, BAD), [], tmp_path / "flyball.sock")


def test_a_reload_changes_nothing_and_tells_why(tmp_path: Path) -> None:
    async def reload() -> tuple[str, ...]:
        daemon = Daemon(configuration(tmp_path, GOOD), [], tmp_path / "flyball.sock")
        configuration(tmp_path, BAD)
        report = await daemon.reload()
        assert report.applied == ()
        assert daemon._config.governor.rules == ("when throttled then hold",)
        return tuple(report.problems)

    (problem,) = asyncio.run(reload())
    assert problem.startswith(f"{tmp_path}/flyball.toml: governor.rules[1]: column 12: cpu is never above 1")
