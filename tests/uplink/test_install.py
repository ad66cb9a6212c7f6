"""ladder.install against a real https server: what is right is put on the shelf, everything else changes nothing."""

import asyncio
import gzip
import hashlib
import io
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from https_side import Server, make_ca, serving
from orders_side import Order

from flyball.errors import CanaryError, LadderError
from flyball.ladder.manifest import LadderFolder
from flyball.ladder.store import Store
from flyball.uplink import download
from flyball.uplink.download import Source, check_url, fetch
from flyball.uplink.install import FOLDER, InstallArgs, InUse, RollbackArgs, install, rollback

pytestmark = pytest.mark.anyio

MANIFEST = """
schema = 1
[ladder]
name = "{name}"
version = "{version}"
task = "tensor"
[[input]]
name = "x"
datatype = "FP32"
shape = [1]
[[output]]
name = "y"
datatype = "FP32"
shape = [1]
[[rung]]
name = "big"
backend = "onnx"
artifact = "big.onnx"
sha256 = "{sha256}"
"""


def archive_of(name: str = "things", version: str = "2", model: bytes = b"model", wrong: bool = False) -> bytes:
    sha256 = hashlib.sha256(b"other" if wrong else model).hexdigest()
    files = {
        "flyball-ladder.toml": MANIFEST.format(name=name, version=version, sha256=sha256).encode(),
        "big.onnx": model,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file, data in files.items():
            info = tarfile.TarInfo(f"things-2/{file}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


class Shelf:
    """Implements install.Shelf over a real store; nothing is served."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.proven: list[str] = []
        self.disproved = ""

    async def prove(self, ladder: LadderFolder) -> None:
        self.proven.append(ladder.version)
        if self.disproved:
            raise CanaryError(self.disproved)

    async def put(self, folder: Path) -> InUse:
        installed = self.store.add(folder)
        return InUse(ladder=installed.name, version=installed.version, before=self.store.previous(installed.name))

    async def back(self, ladder: str, version: str | None) -> InUse:
        folder = self.store.use(ladder, version or self.store.previous(ladder) or "")
        return InUse(ladder=ladder, version=folder.version)

    def in_use(self, ladder: str) -> str | None:
        return self.store.current_version(ladder)


class Bench:
    def __init__(self, server: Server, ca: Path, state: Path) -> None:
        self.server = server
        self.state = state
        self.shelf = Shelf(state / "ladders")
        self.order = Order()
        self.source = Source(hosts=(server.host,), ca_file=str(ca), most_bytes=1 << 20)

    async def install(self, url: str, data: bytes, **more: Any) -> InUse:
        handler = install(self.shelf, self.shelf.prove, self.source, self.state)
        sha256 = hashlib.sha256(data).hexdigest()
        args = InstallArgs(**{"url": url, "sha256": sha256, "ladder": "things", "version": "2", **more})
        found = await handler.run(args, self.order)
        assert isinstance(found, InUse)
        return found

    def nothing_changed(self) -> bool:
        incoming = self.state / FOLDER
        left = list(incoming.iterdir()) if incoming.exists() else []
        return self.shelf.store.names() == [] and left == [] and "verifying" not in [s[0] for s in self.order.said]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; run: sudo apt-get install openssl")
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def bench(ca: Path, tmp_path: Path) -> Iterator[Bench]:
    with serving(ca.parent) as server:
        yield Bench(server, ca, tmp_path)


async def test_a_ladder_is_fetched_proven_and_put_on_the_shelf(bench: Bench) -> None:
    data = archive_of()
    found = await bench.install(bench.server.put("/things.tar.gz", data), data)
    assert found == InUse(ladder="things", version="2")
    assert bench.shelf.store.current_version("things") == "2"
    assert bench.shelf.proven == ["2"]
    steps = [s[0] for s in bench.order.said]
    assert list(dict.fromkeys(steps)) == ["downloading", "unpacking", "checking", "proving", "verifying"]
    assert list((bench.state / FOLDER).iterdir()) == []
    newer = archive_of(version="3", model=b"better")
    found = await bench.install(bench.server.put("/3", newer), newer, version="3")
    assert found.before == "2"
    back = await rollback(bench.shelf).run(RollbackArgs(ladder="things"), bench.order)
    assert (back, bench.shelf.store.current_version("things")) == (InUse(ladder="things", version="2"), "2")
    handler = rollback(bench.shelf)
    await handler.run(RollbackArgs(ladder="things", version="3"), bench.order)
    assert bench.shelf.store.current_version("things") == "3"
    assert handler.verify is not None
    assert await handler.verify(RollbackArgs(ladder="things", version="3"))
    with pytest.raises(LadderError, match="interrupted; things 3 is in use, not 2"):
        await handler.verify(RollbackArgs(ladder="things", version="2"))


async def test_after_a_restart_what_is_in_use_tells_how_it_ended(bench: Bench) -> None:
    handler = install(bench.shelf, bench.shelf.prove, bench.source, bench.state)
    assert handler.on_restart == "verify"
    assert handler.verify is not None
    args = InstallArgs(url=bench.server.url("/x"), sha256="0" * 64, ladder="things", version="2")
    with pytest.raises(LadderError, match="interrupted; things nothing is in use, not 2"):
        await handler.verify(args)
    data = archive_of()
    await bench.install(bench.server.put("/x", data), data)
    assert await handler.verify(args) == InUse(ladder="things", version="2")


async def test_a_redirect_on_the_list_is_followed(bench: Bench) -> None:
    data = archive_of()
    bench.server.put("/real", data)
    assert (await bench.install(bench.server.redirect("/moved", "/real"), data)).version == "2"
    assert bench.server.asked == ["/moved", "/real"]


async def test_a_redirect_off_the_list_is_not_followed(bench: Bench, ca: Path) -> None:
    data = archive_of()
    with serving(ca.parent) as other:
        for target in (other.put("/x", data), "http://localhost/x", "file:///etc/passwd", "//evil.example/x"):
            with pytest.raises(LadderError, match=r"not among uplink.commands.install_hosts|expected https"):
                await bench.install(bench.server.redirect("/moved", target), data)
        assert other.asked == []
    assert bench.nothing_changed()


async def test_redirects_without_an_end_are_given_up(bench: Bench) -> None:
    with pytest.raises(LadderError, match="more than 3 redirects"):
        await bench.install(bench.server.redirect("/round", "/round"), b"")
    assert len(bench.server.asked) == download.MOST_REDIRECTS + 1


@pytest.mark.parametrize(
    "url",
    [
        "http://{host}/x", "https://evil.example/x", "https://localhost/x", "https://{host}.evil.example/x",
        "https://evil.example\\@{host}/x", "https://user:pass@{host}/x", "https://{host}@evil.example/x", "ftp://{host}/x",
        "file:///etc/passwd", "https://{host}:1/x", "https:///x", "https://{host}/x\r\nHost: evil", "https://[::1/x",
        "HTTPS://evil.example", "https://localhost:99999/x", "https://{host} /x", "https://ⓔvil/x",
    ],
)  # fmt: skip
async def test_what_is_not_on_the_list_is_not_asked(bench: Bench, url: str) -> None:
    with pytest.raises(LadderError, match="url: "):
        await bench.install(url.format(host=bench.server.host), b"")
    assert bench.server.asked == []
    assert bench.nothing_changed()


def test_the_list_knows_ports_and_no_difference_of_case() -> None:
    assert check_url("https://Models.Example/a?b=c", ("models.example",)) == ("models.example", 443, "/a?b=c")
    assert check_url("https://models.example:8443", ("MODELS.example:8443",)) == ("models.example", 8443, "/")
    with pytest.raises(LadderError, match=r"\(none\)"):
        check_url("https://models.example", ())


async def test_a_certificate_that_is_not_trusted_is_refused(bench: Bench) -> None:
    data = archive_of()
    bench.source = Source(hosts=(bench.server.host,), ca_file="")
    with pytest.raises(LadderError, match="CERTIFICATE_VERIFY_FAILED"):
        await bench.install(bench.server.put("/x", data), data)
    assert bench.server.asked == []
    assert bench.nothing_changed()


async def test_the_name_in_the_certificate_counts(bench: Bench) -> None:
    port = bench.server.port
    bench.source = Source(hosts=(f"127.0.0.1:{port}",), ca_file=bench.source.ca_file)
    with pytest.raises(LadderError, match="CERTIFICATE_VERIFY_FAILED"):
        await bench.install(f"https://127.0.0.1:{port}/x", b"")
    assert bench.server.asked == []


async def test_another_content_is_not_opened(bench: Bench) -> None:
    url = bench.server.put("/x", archive_of(model=b"evil"))
    with pytest.raises(LadderError, match="expected sha256"):
        await bench.install(url, archive_of())
    assert bench.nothing_changed()
    assert bench.shelf.proven == []


@pytest.mark.parametrize(
    ("length", "reason"),
    [(None, "bytes, expected at most"), (-1, "more than 1048576 bytes"), (3 << 40, "expected at most")],
)
async def test_more_than_may_be_is_not_taken(bench: Bench, length: int | None, reason: str) -> None:
    data = b"x" * ((1 << 20) + 1)
    with pytest.raises(LadderError, match=reason):
        await bench.install(bench.server.put("/x", data, length), data)
    assert bench.nothing_changed()


async def test_a_download_that_is_cut_off_is_not_taken(bench: Bench) -> None:
    data = archive_of()
    with pytest.raises(LadderError, match="cut off after"):
        await bench.install(bench.server.put("/x", data, len(data) + 10), data)
    assert bench.nothing_changed()


async def test_without_free_space_nothing_is_fetched(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SPARE_BYTES", 1 << 60)
    data = archive_of()
    with pytest.raises(LadderError, match="bytes are free, expected"):
        await bench.install(bench.server.put("/x", data), data)
    assert bench.nothing_changed()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (archive_of(name="other"), "the archive has other 2, expected things 2"),
        (archive_of(version="7"), "the archive has things 7, expected things 2"),
        (archive_of(wrong=True), "is not the one the manifest describes"),
        (b"no archive at all", "damaged, or none"),
        (gzip.compress(b"\0" * 10240, mtime=0), "no flyball-ladder.toml"),
    ],
)
async def test_what_is_not_the_ladder_that_was_ordered_is_not_proven(bench: Bench, data: bytes, reason: str) -> None:
    with pytest.raises(LadderError, match=reason):
        await bench.install(bench.server.put("/x", data), data)
    assert bench.nothing_changed()
    assert bench.shelf.proven == []


async def test_what_answers_its_canary_wrongly_is_not_put_on_the_shelf(bench: Bench) -> None:
    data = archive_of()
    bench.shelf.disproved = "answers its canary wrongly"
    with pytest.raises(CanaryError):
        await bench.install(bench.server.put("/x", data), data)
    assert bench.nothing_changed()


@pytest.mark.parametrize("status", [404, 500])
async def test_an_error_of_the_server_is_told(bench: Bench, status: int) -> None:
    bench.server.pages["/x"] = lambda ask: ask.send_error(status)
    with pytest.raises(LadderError, match=f"expected status 200, found {status}"):
        await bench.install(bench.server.url("/x"), b"")


async def test_a_cancelled_download_ends_and_leaves_nothing(bench: Bench) -> None:
    held, more = threading.Event(), threading.Event()

    def slow(ask: Any) -> None:
        ask.send_response(200)
        ask.end_headers()
        for _ in range(100):
            ask.wfile.write(b"x" * 1024)
            held.set()
            if more.wait(0.05):
                return

    bench.server.pages["/x"] = slow
    task = asyncio.ensure_future(bench.install(bench.server.url("/x"), b""))
    assert await asyncio.to_thread(held.wait, 10)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    more.set()
    await asyncio.sleep(0.2)
    assert bench.nothing_changed()


async def test_what_a_kill_left_is_thrown_away_by_the_next_order(bench: Bench) -> None:
    left = bench.state / FOLDER / "left"
    left.mkdir(parents=True)
    (left / "archive").write_bytes(b"x" * 1000)
    data = archive_of()
    await bench.install(bench.server.put("/x", data), data)
    assert not left.exists()


def test_fetch_gives_up_when_it_is_told_before(bench: Bench, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    url = bench.server.put("/x", b"data")
    with pytest.raises(LadderError, match="cancelled"):
        fetch(url, "0" * 64, bench.source, tmp_path / "file", stop, lambda *_: None)
    assert not (tmp_path / "file").exists()
