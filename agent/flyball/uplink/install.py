"""Ladders from the fleet: fetched, proven on this machine, and only then put into service.

url, sha256 -> download -> archive -> manifest and hashes -> every rung's canary -> shelf: swapped in one step

Never opens what has not the hash that was ordered, and never leaves the machine without the version that served: one
that does not come up is swapped back. A kill at any moment leaves the old version or the new one, never half of one;
what was fetched until then is thrown away at the next order.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from flyball.config import LadderName
from flyball.errors import LadderError
from flyball.ladder.manifest import FILE_NAME, LadderFolder, Sha256, Version, load
from flyball.ladder.verify import verify_all
from flyball.uplink.commands import Handler, Order
from flyball.uplink.download import Source, check_url, fetch
from flyball.uplink.thread import apart

FOLDER = "incoming"  # in the state directory, on the file system of the store
EXPANSION = 4  # an archive may unpack to so many times the largest download


class InstallArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`ladder` and `version` are what has to be in the archive, which is a tar, tar.gz or zip."""

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    sha256: Sha256
    ladder: LadderName
    version: Version


class RollbackArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To `version`, or to the one that was in use before."""

    ladder: LadderName
    version: Version | None = None


class InUse(msgspec.Struct, frozen=True, kw_only=True):
    ladder: str
    version: str
    before: str | None = None  # None: the ladder is new here


class Shelf(Protocol):
    """The daemon's store and catalog."""

    async def put(self, folder: Path) -> InUse:
        """Installs, makes it current, takes it into service. Raises LadderError; then the one before serves."""
        ...

    async def back(self, ladder: str, version: str | None) -> InUse:
        """To an installed version, by default the one before. Raises LadderError, NotFoundError."""
        ...

    def in_use(self, ladder: str) -> str | None:
        """The version that answers now."""
        ...


Prove = Callable[[LadderFolder], Awaitable[None]]


def install(shelf: Shelf, prove: Prove, source: Source, state_dir: Path) -> Handler[InstallArgs]:
    """`prove` opens every rung that can run here, compares its canary, and raises LadderError."""

    async def run(args: InstallArgs, order: Order) -> InUse:
        check_url(args.url, source.hosts)  # before anything is made
        staging = await apart(lambda _: _staging(state_dir), "flyball-install")
        try:
            archive, folder = staging / "archive", staging / "ladder"
            await _download(args, order, source, archive)
            await order.step("unpacking")
            await apart(lambda c: _unpack(archive, folder, EXPANSION * source.most_bytes, c), "flyball-install")
            await order.step("checking")
            ladder = await apart(lambda _: _check(folder, args), "flyball-install")
            await order.step("proving")
            await prove(ladder)
            await order.verifying("switching")
            return await shelf.put(ladder.root)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    async def verify(args: InstallArgs) -> InUse:
        return _in_use(shelf, args.ladder, args.version)

    return Handler(name="ladder.install", args=InstallArgs, run=run, on_restart="verify", verify=verify)


def rollback(shelf: Shelf) -> Handler[RollbackArgs]:
    async def run(args: RollbackArgs, order: Order) -> InUse:
        await order.verifying("switching")
        return await shelf.back(args.ladder, args.version)

    async def verify(args: RollbackArgs) -> InUse:
        if args.version is None:
            # The version before, seen from here, may be the one it came from.
            raise LadderError(f"interrupted; {args.ladder} {shelf.in_use(args.ladder) or 'nothing'} is in use now")
        return _in_use(shelf, args.ladder, args.version)

    return Handler(name="ladder.rollback", args=RollbackArgs, run=run, on_restart="verify", verify=verify)


async def _download(args: InstallArgs, order: Order, source: Source, archive: Path) -> None:
    loop, told = asyncio.get_running_loop(), [0, 0]

    def progress(done: int, total: int | None) -> None:
        told[:] = [done, total or 0]  # from the other thread

    work = loop.create_task(
        apart(lambda c: fetch(args.url, args.sha256, source, archive, c, progress), "flyball-install")
    )
    try:
        while not work.done():
            await order.step("downloading", round(told[0] / told[1], 3) if told[1] else None)
            await asyncio.wait({work}, timeout=1.0)
    finally:
        work.cancel()  # of no effect on one that is done
    await work


def _staging(state_dir: Path) -> Path:
    place = state_dir / FOLDER
    try:
        # Orders are carried out one after another, so what lies here was left by a kill.
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, mode=0o700, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=place))
    except OSError as error:
        raise LadderError(f"{place}: cannot be made: {error.strerror}") from error


def _unpack(archive: Path, folder: Path, most_bytes: int, cancelled: threading.Event) -> None:
    from flyball.uplink.archive import unpack  # brings tarfile and zipfile along, which hardly any daemon needs

    folder.mkdir()
    unpack(archive, folder, most_bytes, cancelled)
    archive.unlink()


def _check(folder: Path, args: InstallArgs) -> LadderFolder:
    inside = [folder, *(p for p in sorted(folder.iterdir()) if p.is_dir())]
    root = next((p for p in inside if (p / FILE_NAME).is_file()), None)
    if root is None:
        raise LadderError(f"the archive has no {FILE_NAME}, neither at its top nor in a folder there")
    ladder = load(root)
    if (ladder.name, ladder.version) != (args.ladder, args.version):
        raise LadderError(
            f"the archive has {ladder.name} {ladder.version}, expected {args.ladder} {args.version} as ordered"
        )
    problems = verify_all(ladder)
    if problems:
        raise LadderError("the ladder was not installed", problems)
    return ladder


def _in_use(shelf: Shelf, ladder: str, version: str) -> InUse:
    """Whether an order had its effect before the daemon ended. Raises LadderError."""
    found = shelf.in_use(ladder)
    if found != version:
        raise LadderError(f"interrupted; {ladder} {found or 'nothing'} is in use, not {version}")
    return InUse(ladder=ladder, version=version)
