"""The desired document: applied whole or not at all, and no message locks a device out."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from device_side import until
from hypothesis import given
from hypothesis import strategies as st
from orders_side import Daemon, Documents

from flyball.errors import MessageError
from flyball.uplink import twin as module
from flyball.uplink.configuring import Configuring
from flyball.uplink.messages import MAX_VERSION, Encoded, TwinDocument, TwinReported
from flyball.uplink.state import StateFile
from flyball.uplink.twin import DOCUMENT, MOST_STEP, Kept, Twin, read_document, reset

pytestmark = pytest.mark.anyio


class Bench:
    def __init__(self, documents: Documents | None = None) -> None:
        self.daemon = Daemon()
        self.documents = documents or Documents()
        self.configuring = Configuring(self.daemon, self.documents, trial_s=0.02)
        self.twin = Twin(self.configuring, self.documents)

    async def want(self, version: Any, doc: Any = None) -> TwinReported:
        await self.twin.take(json.dumps({"version": version, "doc": doc or {}}).encode())
        return await self.twin.report("e1")

    def kept(self) -> Kept:
        return msgspec.json.decode(self.documents.bodies[DOCUMENT], type=Kept)


FULL = {"groups": ["north"], "tags": {"line": "4"}, "config": {"governor.dwell_s": 2.5}}


async def test_a_document_is_applied_and_reported() -> None:
    bench = Bench()
    report = await bench.want(5, FULL)
    assert (report.desired_version, report.errors, report.refused_version) == (5, (), None)
    assert report.doc == TwinDocument(groups=("north",), tags={"line": "4"}, config={"governor.dwell_s": 2.5})
    assert bench.daemon.applied == [{"governor": {"dwell_s": 2.5}}]
    assert bench.twin.version() == 5


async def test_reports_are_counted_over_restarts() -> None:
    bench = Bench()
    first = await bench.want(1, FULL)
    second = await Bench(bench.documents).twin.report("e1")
    assert second.version > first.version
    assert (second.desired_version, second.doc) == (1, first.doc)


async def test_without_config_the_settings_stay_and_with_an_empty_one_they_go() -> None:
    bench = Bench()
    await bench.want(1, FULL)
    assert (await bench.want(2, {"tags": {}})).doc.config == {"governor.dwell_s": 2.5}
    assert (await bench.want(3, {"config": {}})).doc.config == {}
    assert bench.daemon.applied[-1] == {}


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (4, "4 is older than 5"),
        (5 + MOST_STEP + 1, "more than"),
        (2**63, "Expected `int` <="),
        (2**53, "more than"),
        (10**400, "version"),
        (0, "Expected `int` >="),
        (-1, "Expected `int` >="),
        ("6", "Expected `int`"),
        (6.5, "Expected `int`"),
        (True, "Expected `int`"),
    ],
)
async def test_a_version_that_may_not_be_is_refused_and_the_next_good_one_is_taken(version: Any, reason: str) -> None:
    bench = Bench()
    before = await bench.want(5, FULL)
    report = await bench.want(version, {"tags": {"line": "5"}})
    (error,) = report.errors
    assert error.key == "version"
    assert reason in error.message
    assert (report.desired_version, report.doc) == (5, before.doc)
    assert bench.daemon.applied == [{"governor": {"dwell_s": 2.5}}]
    after = await bench.want(6, {"tags": {"line": "6"}})
    assert (after.desired_version, after.errors, after.refused_version) == (6, (), None)


@pytest.mark.parametrize(
    ("doc", "keys"),
    [
        ({"nope": 1, "tags": {"a/b": "x", "ok": 5}}, {"nope", "tags.a/b", "tags.ok"}),
        ({"groups": ["a", "b/c"]}, {"groups"}),
        ({"groups": "north"}, {"groups"}),
        ({"tags": ["x"]}, {"tags"}),
        ({"config": {"serving.http": "0.0.0.0:1", "governor.dwell_s": 1.0}}, {"config.serving.http"}),
        ({"config": {"governor.dwell_s": [1]}}, {"config.governor.dwell_s"}),
        ({"config": {"governor.mode": "impossible"}}, {"config.governor.mode"}),
        ({"config": {"governor.mode": "unappliable"}}, {"config"}),
        ({"config": {"governor.mode": "sickening"}}, {"config"}),
        ([], {""}),
    ],
)
async def test_a_bad_document_is_refused_whole_with_its_keys(doc: Any, keys: set[str]) -> None:
    bench = Bench()
    before = await bench.want(1, FULL)
    payload = json.dumps({"version": 2, "doc": doc}).encode()
    await bench.twin.take(payload)
    report = await bench.twin.report("e1")
    assert {e.key for e in report.errors} == keys
    assert (report.desired_version, report.refused_version, report.doc) == (1, 2, before.doc)
    assert bench.daemon.applied[-1] == {"governor": {"dwell_s": 2.5}}
    applied = len(bench.daemon.applied)
    await bench.twin.take(payload)  # as after every reconnect
    assert len(bench.daemon.applied) == applied
    assert (await bench.want(3, {"tags": {"x": "y"}})).desired_version == 3


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"{", b"[]", b'{"version": 3}', b'{"doc": {}}', b"[" * 5000, b"null"])
async def test_what_is_no_document_is_refused(payload: bytes) -> None:
    bench = Bench()
    await bench.want(2, FULL)
    await bench.twin.take(payload)
    report = await bench.twin.report("e1")
    assert len(report.errors) == 1
    assert report.desired_version == 2


async def test_a_document_that_was_removed_changes_nothing() -> None:
    bench = Bench()
    before = await bench.want(2, FULL)
    await bench.twin.take(b"")
    assert (await bench.twin.report("e1")).doc == before.doc


async def test_the_same_version_again_is_not_applied_again() -> None:
    bench = Bench()
    await bench.want(2, FULL)
    await bench.want(2, {"config": {"governor.dwell_s": 9.0}})
    assert bench.daemon.applied == [{"governor": {"dwell_s": 2.5}}]


async def test_a_document_that_ended_the_daemon_is_not_tried_at_every_start() -> None:
    documents = Documents()
    documents.bodies[DOCUMENT] = msgspec.json.encode(Kept(version=3, attempt=4))
    bench = Bench(documents)
    (told,) = await bench.twin.recover()
    assert "version 4" in told
    report = await bench.want(4, FULL)
    assert "ended while it tried" in report.errors[0].message
    assert bench.daemon.applied == []
    assert (await bench.want(5, FULL)).desired_version == 5
    assert await bench.twin.recover() == []


async def test_an_operator_resets_the_version_beside_the_running_daemon(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.save_document(DOCUMENT, msgspec.json.encode(Kept(version=MAX_VERSION, tags={"a": "b"})))
    documents = Documents()
    documents.bodies[DOCUMENT] = file.document(DOCUMENT) or b""
    bench = Bench(documents)
    assert (await bench.want(7)).errors[0].key == "version"
    assert reset(file, 6) == MAX_VERSION
    documents.bodies[DOCUMENT] = file.document(DOCUMENT) or b""
    report = await bench.twin.report("e1")
    assert (report.desired_version, report.doc.tags, report.errors) == (6, {"a": "b"}, ())
    assert (await bench.want(7, FULL)).desired_version == 7
    with pytest.raises(MessageError, match="version: expected 0"):
        reset(file, -1)


async def test_of_several_documents_that_wait_the_newest_counts_and_every_change_is_reported() -> None:
    bench = Bench()
    reports: list[TwinReported] = []

    def publish(encoded: Encoded) -> None:
        reports.append(msgspec.json.decode(encoded.payload, type=TwinReported))

    work = asyncio.create_task(bench.twin.work(publish, lambda: "e1"))
    for version in (1, 2, 3):
        bench.twin.desired(json.dumps({"version": version, "doc": {"tags": {"v": str(version)}}}).encode())
    await until(lambda: len(reports) == 1)
    assert [r.desired_version for r in reports] == [3]
    await bench.configuring.change({"governor.dwell_s": 8.0})  # by a command
    await until(lambda: len(reports) == 2)
    assert reports[1].doc.config == {"governor.dwell_s": 8.0}
    bench.documents.fail_at = bench.documents.writes + 1
    bench.twin.again()
    await asyncio.sleep(0.05)
    bench.twin.again()  # a full disk does not end it
    await until(lambda: len(reports) == 3)
    work.cancel()


KEYS = st.sampled_from(["groups", "tags", "config", "x"]) | st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


@given(JSON)
def test_any_document_is_read_or_refused_with_keys(doc: object) -> None:
    found = read_document(json.dumps(doc).encode())
    if isinstance(found, TwinDocument):
        assert isinstance(doc, dict)
        assert set(doc) <= {"groups", "tags", "config"}
    else:
        assert found
        assert all(e.message for e in found)


def test_the_step_leaves_versions_for_ever() -> None:
    assert MAX_VERSION // module.MOST_STEP > 1e9
