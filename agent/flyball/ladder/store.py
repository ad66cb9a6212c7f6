"""The ladders installed on this machine.

<state>/ladders/NAME/versions/VERSION/   the files, never changed once there
<state>/ladders/NAME/current             a symbolic link to the version in use, replaced in one step
<state>/ladders/NAME/previous            the same, to the one before it

A version is copied beside its place, flushed to disk and renamed, so that a crash leaves either all of it or none.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flyball.errors import LadderError, NotFoundError
from flyball.ladder.manifest import FILE_NAME, LadderFolder, load
from flyball.ladder.verify import verify_all


class Store:
    """`root` is the folder `ladders` of the state directory; it is made when first needed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def current(self) -> dict[str, Path]:
        """The folder in use of every installed ladder, by name."""
        links = {name: self._root / name / "current" for name in self.names()}
        return {name: link.resolve() for name, link in links.items() if link.is_dir()}

    def names(self) -> list[str]:
        """Of everything installed, also of what is damaged."""
        return sorted(p.name for p in self._root.iterdir() if not p.name.startswith(".")) if self._root.is_dir() else []

    def open(self, name: str) -> LadderFolder:
        """The version in use. Raises LadderError."""
        link = self._root / name / "current"
        if not link.is_dir():
            raise LadderError(f"the ladder in {link.parent} is damaged", [f"{link}: leads to no folder"])
        return load(link.resolve())

    def versions(self, name: str) -> list[str]:
        folder = self._root / name / "versions"
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []

    def add(self, source: Path) -> LadderFolder:
        """Installs the ladder in `source` and makes it current. Adding what is there already changes nothing.

        Raises LadderError: bad manifest, wrong hashes, or another content under an installed version.
        """
        folder = load(source)
        problems = verify_all(folder)
        if problems:
            raise LadderError(f"the ladder in {source} was not installed", problems)
        place = self._root / folder.name / "versions" / folder.version
        try:
            if place.exists():
                self._same_or_refuse(folder, place)
            else:
                self._copy(folder, place)
            self._make_current(folder.name, folder.version)
        except OSError as error:
            raise LadderError(f"{place}: cannot be installed: {error.strerror} ({error.filename})") from error
        return load(place)

    def previous(self, name: str) -> str | None:
        """The installed version that was current before; None when there is none."""
        version = _target(self._root / name / "previous")
        return version if version in self.versions(name) and version != self.current_version(name) else None

    def current_version(self, name: str) -> str | None:
        return _target(self._root / name / "current")

    def use(self, name: str, version: str) -> LadderFolder:
        """Makes an installed version current. Raises NotFoundError, LadderError: damaged, or not to be written."""
        if version not in self.versions(name):
            known = ", ".join(self.versions(name)) or "none"
            raise NotFoundError(f"ladder {name!r}: version {version!r} is not installed (installed: {known})")
        place = self._root / name / "versions" / version
        folder = load(place)
        problems = verify_all(folder)
        if problems:
            raise LadderError(f"{name} {version} is damaged, so it was not made current", problems)
        try:
            self._make_current(name, version)
        except OSError as error:
            raise LadderError(f"{place}: cannot be made current: {error.strerror} ({error.filename})") from error
        return folder

    def remove(self, name: str) -> None:
        """Raises NotFoundError, LadderError."""
        place = self._root / name
        if not name or "/" in name or name.startswith(".") or not place.is_dir():
            known = ", ".join(self.current()) or "none"
            raise NotFoundError(f"no ladder {name!r} is installed in {self._root} (installed: {known})")
        try:
            # Renamed first: a crash half way leaves a hidden rest, never half a ladder.
            trash = Path(tempfile.mkdtemp(prefix=".removed-", dir=self._root))
            place.rename(trash / name)
            shutil.rmtree(trash)
        except OSError as error:
            raise LadderError(f"{place}: cannot be removed: {error.strerror} ({error.filename})") from error

    def _make_current(self, name: str, version: str) -> None:
        place, before = self._root / name, self.current_version(name)
        if before is not None and before != version:
            # First: a crash in between leaves both on one version, which previous() tells from a way back.
            _point(place / "previous", Path("versions") / before)
        _point(place / "current", Path("versions") / version)

    def _same_or_refuse(self, folder: LadderFolder, place: Path) -> None:
        if (folder.root / FILE_NAME).read_bytes() != (place / FILE_NAME).read_bytes() or verify_all(load(place)):
            raise LadderError(
                f"{folder.name} {folder.version} is installed with other content; versions never change: "
                f"write a new version into {folder.root / FILE_NAME}"
            )

    def _copy(self, folder: LadderFolder, place: Path) -> None:
        for folder_above in (self._root, place.parent.parent, place.parent):
            if not folder_above.is_dir():
                folder_above.mkdir(parents=True)
                folder_above.chmod(0o755)  # whatever the umask: the service reads it as its own user
        beside = Path(tempfile.mkdtemp(prefix=".adding-", dir=self._root))
        try:
            for file in _files(folder):
                target = beside / file
                target.parent.mkdir(parents=True, exist_ok=True)
                for above in target.relative_to(beside).parents:
                    (beside / above).chmod(0o755)
                shutil.copyfile(folder.root / file, target)
                target.chmod(0o644)
                _flush(target)
            _flush(beside)
            beside.rename(place)
            _flush(place.parent)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def _files(folder: LadderFolder) -> Iterator[str]:
    """What belongs to the ladder, and nothing else that lies in the folder."""
    yield FILE_NAME
    if folder.manifest.ladder.labels:
        yield folder.manifest.ladder.labels
    yield from dict.fromkeys(r.artifact for r in folder.manifest.rung)


def _target(link: Path) -> str | None:
    return os.readlink(link).rpartition("/")[2] if link.is_symlink() else None


def _point(link: Path, target: Path) -> None:
    """Makes `link` point to `target` in one step."""
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
    _flush(link.parent)


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
