"""What orders do to store, catalog and configuration: a version that does not come up leaves what was."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "ladder"))

from ladders import write_ladder

from flyball.config import Config
from flyball.errors import ConfigError, LadderError, NotFoundError, UnavailableError
from flyball.ladder.store import Store
from flyball.ports import ReloadReport
from flyball.remote import Host, Remote, secrets_of
from flyball.uplink.install import InUse

pytestmark = pytest.mark.anyio


class Bench:
    """A host whose catalog serves what is current in the store, but for the versions in `broken`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        self.broken: set[str] = set()
        self.overlay: Any = {}
        self.report = ReloadReport()
        self.refusal: Sequence[str] = ()
        self.stuck: list[str] = []
        self.state = "ready"
        self.ended = 0
        catalog: Any = SimpleNamespace(ladders=self._ladders)
        sensors: Any = None
        self.remote = Remote(
            Host(
                config_path=None, store=self.store, catalog=catalog, sensors=sensors, config=Config, load=self._load,
                overlay=self._overlaid, reload=self._reload, stuck=lambda: self.stuck, end=self._end,
            )
        )  # fmt: skip

    def _ladders(self) -> list[Any]:
        served = []
        for name in self.store.names():
            version = self.store.current_version(name)
            if version not in self.broken:
                status = SimpleNamespace(name=name, state=self.state)
                served.append(SimpleNamespace(name=name, version=version, status=lambda s=status: s))
        return served

    def _load(self, overlay: Any) -> Config:
        if self.refusal:
            raise ConfigError("no", self.refusal)
        return Config()

    def _overlaid(self, tables: Any) -> None:
        self.overlay = tables

    async def _reload(self) -> ReloadReport:
        return self.report

    def _end(self) -> None:
        self.ended += 1

    async def put(self, version: str) -> InUse:
        return await self.remote.put(write_ladder(self.folder / f"in-{version}", version.encode(), version=version))


async def test_a_version_that_comes_up_is_in_use(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert await bench.put("1") == InUse(ladder="things", version="1")
    assert await bench.put("2") == InUse(ladder="things", version="2", before="1")
    assert await bench.put("2") == InUse(ladder="things", version="2")  # once more
    assert await bench.remote.back("things", None) == InUse(ladder="things", version="1", before="2")
    assert await bench.remote.back("things", "2") == InUse(ladder="things", version="2", before="1")
    with pytest.raises(NotFoundError):
        await bench.remote.back("things", "9")


async def test_a_version_that_does_not_come_up_is_swapped_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.put("1")
    bench.broken = {"2"}
    bench.report = ReloadReport(problems=("its first rung hangs",))
    with pytest.raises(LadderError, match="did not come up, so 1 is in use again: its first rung hangs"):
        await bench.put("2")
    assert bench.remote.in_use("things") == "1"


async def test_a_new_ladder_that_does_not_come_up_is_taken_away(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.broken = {"1"}
    with pytest.raises(LadderError, match="so nothing is in use again"):
        await bench.put("1")
    assert bench.store.names() == []


async def test_what_was_installed_before_is_never_taken_away(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.put("1")
    bench.broken = {"1"}
    with pytest.raises(LadderError, match="was current already"):
        await bench.put("1")
    assert bench.store.current_version("things") == "1"
    with pytest.raises(LadderError, match="there is no version before"):
        await bench.remote.back("things", None)


async def test_settings_are_examined_before_they_are_laid_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.refusal = ("what the fleet has set: governor.dwell_s: expected a number",)
    assert bench.remote.examine({"a": 1}) == bench.refusal
    with pytest.raises(ConfigError, match="do not fit"):
        await bench.remote.apply({"a": 1})
    assert bench.overlay == {}
    bench.refusal = ()
    bench.report = ReloadReport(problems=("an old trouble of another ladder",), applied=("governor",))
    await bench.remote.apply({"a": 1})
    assert bench.overlay == {"a": 1}
    bench.report = ReloadReport(problems=("no such file",))
    with pytest.raises(ConfigError, match="no such file"):
        await bench.remote.apply({"a": 2})


async def test_what_is_unwell(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.put("1")
    assert set(bench.remote.unwell()) == set()
    bench.state, bench.stuck = "failed", ["governor"]
    assert set(bench.remote.unwell()) == {"ladder things is failed", "the governor loop does not move"}
    assert bench.remote.in_use("things") is None


def test_a_restart_needs_somebody_who_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    with pytest.raises(UnavailableError, match="nobody would start it again"):
        bench.remote.restart()
    monkeypatch.setenv("INVOCATION_ID", "x")
    bench.remote.restart()
    assert bench.ended == 1


def test_the_devices_own_password_is_a_known_secret(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2-Zq\n")
    uplink = Config().uplink
    for file, known in ((str(tmp_path / "password"), ("hunter2-Zq",)), ("", ()), (str(tmp_path / "none"), ())):
        config = type(Config())(uplink=type(uplink)(username="u", password_file=file))
        assert tuple(secrets_of(config)) == known
