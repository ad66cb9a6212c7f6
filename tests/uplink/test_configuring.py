"""Settings from the fleet: which, on trial, kept or taken back."""

import asyncio
import typing
from pathlib import Path

import msgspec
import pytest
from device_side import until
from orders_side import Daemon, Documents

from flyball.config import Config, LadderSettings, load
from flyball.errors import ConfigError, StateError
from flyball.uplink import configuring
from flyball.uplink.configuring import DOCUMENT, Configuring, Kept, SettingsRefused, at_start, tables
from flyball.uplink.state import FILE_NAME, StateFile

pytestmark = pytest.mark.anyio


def make(daemon: Daemon | None = None, documents: Documents | None = None, trial_s: float = 0.05) -> Configuring:
    return Configuring(daemon or Daemon(), documents or Documents(), trial_s)


def kept(documents: Documents) -> Kept:
    return msgspec.json.decode(documents.bodies[DOCUMENT], type=Kept)


async def test_what_stays_well_is_kept_and_can_be_taken_back() -> None:
    daemon, documents = Daemon(), Documents()
    settings = make(daemon, documents)
    assert await settings.change({"governor.dwell_s": 3.0}) == ["governor.dwell_s"]
    assert await settings.change({"governor.dwell_s": 4.0, "ladder.a.b.limits.latency_p95_ms": 5}) == [
        "governor.dwell_s", "ladder.a.b.limits.latency_p95_ms"
    ]  # fmt: skip
    assert daemon.applied[-1] == {"governor": {"dwell_s": 4.0}, "ladder": {"a.b": {"limits": {"latency_p95_ms": 5}}}}
    assert kept(documents).trial is None
    await settings.rollback()
    assert await settings.settings() == {"governor.dwell_s": 3.0}
    assert daemon.applied[-1] == {"governor": {"dwell_s": 3.0}}


async def test_null_goes_back_to_the_machines_own_files() -> None:
    settings = make()
    await settings.change({"governor.dwell_s": 3.0, "governor.headroom": 0.5})
    assert await settings.change({"governor.dwell_s": None}) == ["governor.dwell_s"]
    assert await settings.settings() == {"governor.headroom": 0.5}


@pytest.mark.parametrize(
    "key",
    [
        "paths.state", "serving.http", "serving.allowed_hosts", "uplink.broker", "uplink.username",
        "uplink.password_file", "uplink.commands.allow", "uplink.commands.install_hosts", "ladder.x.path",
        "engine.threads", "log", "", "governor", "governor.limits", "ladder..rung", "ladder.rung", "governor.rules",
        f"ladder.{'x' * 65}.rung", "governor.mode.x", "uplink.enabled", "schema",
    ],
)  # fmt: skip
async def test_what_is_not_listed_is_refused_and_nothing_else_is_done(key: str) -> None:
    daemon, documents = Daemon(), Documents()
    with pytest.raises(SettingsRefused, match="not among the settings"):
        await make(daemon, documents).change({"governor.dwell_s": 3.0, key: "x"})
    assert (daemon.applied, documents.bodies) == ([], {})


def test_every_listed_key_exists_and_none_is_a_path_or_a_credential() -> None:
    def has(kind: type[msgspec.Struct], parts: list[str]) -> bool:
        fields = {f.name: f.type for f in msgspec.structs.fields(kind)}
        if parts[0] not in fields:
            return False
        inner = [t for t in (fields[parts[0]], *typing.get_args(fields[parts[0]])) if isinstance(t, type)]
        structs = [t for t in inner if issubclass(t, msgspec.Struct)]
        return bool(structs) and has(structs[0], parts[1:]) if len(parts) > 1 else not structs

    governor = type(Config().governor)
    assert [k for k in configuring.GOVERNOR if not has(governor, k.split("."))] == []
    assert [k for k in configuring.LADDER if not has(LadderSettings, k.split("."))] == []


async def test_what_makes_the_daemon_unwell_is_taken_back() -> None:
    daemon, documents = Daemon(), Documents()
    settings = make(daemon, documents, trial_s=5)
    await asyncio.wait_for(_change_slowly(settings, daemon), 4)
    assert daemon.applied == [{"governor": {"mode": "sickening"}}, {}]
    assert kept(documents) == Kept()


async def _change_slowly(settings: Configuring, daemon: Daemon) -> None:
    daemon.after_s = 0.1
    with pytest.raises(ConfigError, match="taken back: with them the daemon was not well: sick"):
        await settings.change({"governor.mode": "sickening"})


async def test_what_was_wrong_before_is_not_blamed_on_new_settings() -> None:
    daemon = Daemon()
    daemon.ill.add("an old trouble")
    assert await make(daemon).change({"governor.dwell_s": 3.0})


@pytest.mark.parametrize(("mode", "error"), [("impossible", SettingsRefused), ("unappliable", ConfigError)])
async def test_what_does_not_fit_changes_nothing(mode: str, error: type[Exception]) -> None:
    daemon, documents = Daemon(), Documents()
    settings = make(daemon, documents)
    await settings.change({"governor.dwell_s": 3.0})
    with pytest.raises(error):
        await settings.change({"governor.mode": mode})
    assert await settings.settings() == {"governor.dwell_s": 3.0}
    assert daemon.applied[-1] == {"governor": {"dwell_s": 3.0}}


@pytest.mark.parametrize("write", [1, 2])
async def test_a_full_disk_leaves_the_settings_from_before_in_force(write: int) -> None:
    daemon, documents = Daemon(), Documents()
    documents.fail_at = write
    with pytest.raises(StateError):
        await make(daemon, documents).change({"governor.dwell_s": 3.0})
    assert kept(documents).settings == {} if documents.bodies else True
    assert not daemon.applied or daemon.applied[-1] == {}


async def test_a_trial_that_is_cancelled_is_taken_back() -> None:
    daemon, documents = Daemon(), Documents()
    task = asyncio.ensure_future(make(daemon, documents, trial_s=60).change({"governor.dwell_s": 3.0}))
    await until(lambda: bool(daemon.applied))
    assert kept(documents).trial == {"governor.dwell_s": 3.0}
    task.cancel()
    await asyncio.wait({task})
    assert daemon.applied[-1] == {}
    assert kept(documents) == Kept()


async def test_a_crash_in_the_trial_is_told_and_what_held_holds(tmp_path: Path) -> None:
    documents = Documents()
    crashed = Kept(settings={"governor.dwell_s": 3.0}, trial={"governor.dwell_s": 99.0})
    documents.bodies[DOCUMENT] = msgspec.json.encode(crashed)
    file = StateFile(tmp_path)
    file.save_document(DOCUMENT, documents.bodies[DOCUMENT])
    file.close()
    assert at_start(tmp_path) == {"governor": {"dwell_s": 3.0}}
    after = make(documents=documents)
    assert "governor.dwell_s" in await after.recover()
    assert await after.recover() == ""
    assert kept(documents) == Kept(settings={"governor.dwell_s": 3.0})


def test_at_the_start_there_may_be_nothing_or_nonsense(tmp_path: Path) -> None:
    assert at_start(tmp_path) == {}
    (tmp_path / FILE_NAME).write_bytes(b"\0" * 8192)
    assert at_start(tmp_path) == {}
    assert (tmp_path / FILE_NAME).read_bytes() == b"\0" * 8192  # the uplink sets it aside, and tells so


def test_at_the_start_only_listed_keys_count(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    told = {"serving.http": "0.0.0.0:80", "governor.dwell_s": 3.0}
    file.save_document(DOCUMENT, msgspec.json.encode(Kept(settings=told)))
    file.close()
    assert at_start(tmp_path) == {"governor": {"dwell_s": 3.0}}


def test_the_settings_lie_over_the_machines_own_files(tmp_path: Path) -> None:
    main = tmp_path / "flyball.toml"
    main.write_text('[governor]\ndwell_s = 1\nheadroom = 0.5\n[ladder."a.b"]\nrung = "big"\n')
    config = load(main, overlay=tables({"governor.dwell_s": 7, "ladder.a.b.limits.latency_p95_ms": 20}))
    assert (config.governor.dwell_s, config.governor.headroom) == (7, 0.5)
    assert config.ladder["a.b"].rung == "big"
    limits = config.ladder["a.b"].limits
    assert limits is not None
    assert limits.latency_p95_ms == 20
    with pytest.raises(ConfigError, match=r"what the fleet has set: governor\.headroom: expected a number"):
        load(main, overlay=tables({"governor.headroom": "x"}))
