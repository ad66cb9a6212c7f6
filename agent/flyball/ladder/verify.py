"""Artifacts against the hashes in their manifest, before anything opens them.

artifact file -> sha256 -> equal to the manifest's, or LadderError
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flyball.errors import LadderError
from flyball.ladder.manifest import LadderFolder, Rung


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def verify_rung(folder: LadderFolder, rung: Rung) -> Path:
    """The path of the rung's artifact, once its content has been found to be what the manifest says.

    Raises LadderError: missing, unreadable, outside the folder (through a symbolic link), or other content.
    """
    path = folder.artifact(rung)
    where = f"ladder {folder.name} {folder.version}, rung {rung.name}"
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(folder.root.resolve()):
            raise LadderError(f"{where}: the artifact {path} is a link to {real}, outside the ladder's folder")
        found = sha256_file(real)
    except OSError as error:
        raise LadderError(f"{where}: the artifact {path} cannot be read: {error.strerror}") from error
    if found != rung.sha256:
        raise LadderError(
            f"{where}: the artifact {path} is not the one the manifest describes: expected sha256 {rung.sha256}, "
            f"found {found} ({real.stat().st_size} bytes). Copy the file again, or, if it was changed on purpose, "
            "write the new hash into the manifest under a new version"
        )
    return real


def verify_all(folder: LadderFolder) -> list[str]:
    """One line for every rung whose artifact is not what the manifest says."""
    problems = []
    for rung in folder.manifest.rung:
        try:
            verify_rung(folder, rung)
        except LadderError as error:
            problems.append(str(error))
    return problems
