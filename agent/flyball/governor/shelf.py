"""The profiles that `flyball bench` left for the ladders in service.

<state>/profiles/LADDER.json, or what [ladder.NAME] profile names -> profile.figures -> one answer per served version

Read once for every version, and again after a reload. A profile that cannot be used is told once and left aside: the
ladder is then governed by what its rungs' warm-ups measure.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from flyball.errors import ConfigError
from flyball.governor.profile import Figures, figures
from flyball.ladder.manifest import LadderFolder
from flyball.ladder.profile import content_hash, load

log = logging.getLogger(__name__)


class Shelf:
    """`power_mode` is the machine's now, "" where it has none."""

    def __init__(self, folder: Path, power_mode: str) -> None:
        self._folder = folder
        self._power_mode = power_mode
        self._known: dict[tuple[str, str], Mapping[str, Figures]] = {}

    def figures(self, ladder: LadderFolder, configured: str = "") -> Mapping[str, Figures]:
        """By rung; empty without a usable profile."""
        key = (str(ladder.root), configured)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._read(ladder, configured)
        return known

    def forget(self) -> None:
        """After a reload: files may have changed."""
        self._known.clear()

    def _read(self, ladder: LadderFolder, configured: str) -> Mapping[str, Figures]:
        path = Path(configured) if configured else self._folder / f"{ladder.name}.json"
        try:
            if not configured and not path.exists():
                log.info("no profile of %s: `flyball bench` measures one, for %s", ladder.name, path)
                return {}
            document = load(path)
            found, problems = figures(document, content_hash(ladder), self._power_mode)
        except (ConfigError, OSError) as error:
            log.error("the profile of %s is left aside: %s", ladder.name, error)
            return {}
        for problem in problems:
            log.warning("%s: %s", path, problem)
        if found:
            log.info("%s is governed by the profile %s of %s", ladder.name, path, document.measured)
        return found
