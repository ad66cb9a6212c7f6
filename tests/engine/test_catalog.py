"""Ladders put into service, replaced and removed, with real workers."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from faulty_ladders import catalogue, children, write_scripts
from faulty_requests import ask, values

from flyball.config import Cache, LadderSettings
from flyball.errors import NotFoundError, UnavailableError
from flyball.ladder.manifest import load

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]

NEEDS_PROBE = 'accelerators = ["faulty"]'  # then the backend is asked, in a child process, before a rung is opened


async def test_a_request_that_comes_while_the_accelerators_are_probed_waits_for_the_first_rung(tmp_path: Path) -> None:
    folder = load(write_scripts(tmp_path, {"a": {"factor": 3}}, extra=NEEDS_PROBE))
    async with catalogue() as catalog:
        loading = asyncio.create_task(catalog.load(folder))
        await asyncio.sleep(0)
        assert catalog.get("t").status().state == "loading"
        answer = await catalog.get("t").infer(ask(1.0, 2.0))
        assert values(answer) == [3.0, 6.0]
        await loading


async def test_a_version_that_does_not_open_leaves_the_one_in_service(tmp_path: Path) -> None:
    good = load(write_scripts(tmp_path / "1", {"a": {"factor": 2}}))
    bad = load(write_scripts(tmp_path / "2", {"a": {"open": "error"}}, version="2"))
    async with catalogue() as catalog:
        await catalog.load(good)
        with pytest.raises(UnavailableError, match="this artifact says no"):
            await catalog.load(bad)
        assert catalog.get("t").version == "1"
        assert values(await catalog.get("t").infer(ask(1.0))) == [2.0]


async def test_a_ladder_that_failed_is_listed_and_can_be_loaded_again(tmp_path: Path) -> None:
    path = write_scripts(tmp_path, {"a": {"open": "error"}})
    async with catalogue() as catalog:
        with pytest.raises(UnavailableError):
            await catalog.load(load(path))
        assert catalog.get("t").status().state == "failed"
        await catalog.load(load(write_scripts(tmp_path, {"a": {"factor": 5}})))
        assert values(await catalog.get("t").infer(ask(1.0))) == [5.0]


async def test_new_versions_under_traffic_lose_nothing_and_leave_no_worker_behind(tmp_path: Path) -> None:
    """More clients than slots, some of which name their rung, and switches in the middle of the change."""
    rungs = {"a": {"factor": 2, "pad": "x" * 50}, "b": {"factor": 3}}
    stop = False
    answered = 0
    async with catalogue() as catalog:
        await catalog.load(load(write_scripts(tmp_path / "1", rungs)))

        async def client(rung: str | None) -> None:
            nonlocal answered
            while not stop:
                answer = await catalog.get("t").infer(ask(1.0, 1.0, rung=rung))
                assert values(answer) == ([2.0, 2.0] if answer.rung == "a" else [3.0, 3.0])
                answered += 1

        clients = [asyncio.create_task(client(rung)) for rung in (None, None, None, None, None, None, "a", "b")]
        for version in ("2", "3", "4"):
            change = asyncio.create_task(catalog.load(load(write_scripts(tmp_path / version, rungs, version=version))))
            with contextlib.suppress(UnavailableError):
                await catalog.get("t").switch("b", "test")
            await change
            await catalog.get("t").settled()
            await catalog.get("t").switch("a", "test")
        stop = True
        await asyncio.gather(*clients)
        assert answered > 50
        assert len(children()) == 2, "the rungs of the last version"
    assert children() == []


async def test_other_settings_take_effect_on_the_ladder_in_service(tmp_path: Path) -> None:
    async with catalogue() as catalog:
        await catalog.load(load(write_scripts(tmp_path, {"a": {}})))
        catalog.configure({"t": LadderSettings(cache=Cache(max_mib=1))})
        for _ in range(2):
            await catalog.get("t").infer(ask(1.0))
        assert catalog.get("t").totals().cache["hits"] == 1
        catalog.configure({})
        assert catalog.get("t").totals().cache == {}


async def test_a_ladder_whose_accelerators_are_all_absent_says_which(tmp_path: Path) -> None:
    folder = load(write_scripts(tmp_path, {"a": {}, "b": {}}, extra='accelerators = ["edgetpu"]'))
    async with catalogue() as catalog:
        with pytest.raises(UnavailableError, match="a: none of its accelerators is present: edgetpu; b: none of its"):
            await catalog.load(folder)


async def test_what_is_removed_is_unknown_and_its_version_must_match(tmp_path: Path) -> None:
    async with catalogue() as catalog:
        await catalog.load(load(write_scripts(tmp_path, {"a": {}})))
        with pytest.raises(NotFoundError, match=r"version '2'.*in service: t \(1\)"):
            catalog.get("t", "2")
        await catalog.remove("t")
        with pytest.raises(NotFoundError, match="in service: none"):
            catalog.get("t")
