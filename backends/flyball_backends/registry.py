"""The backends that are installed, by name.

entry points of the group "flyball.backends" -> find(name) -> Backend

Loads only the one that is asked for, so that a broken plug-in hides no other; never imports a vendor library.
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any, Dict, Iterable, List

from flyball_backends.checks import nearest
from flyball_backends.contract import API_VERSION, Backend, BackendError

GROUP = "flyball.backends"


def names() -> List[str]:
    """The names of all registered backends, sorted; whether they load is not tried."""
    return sorted(_entries())


def find(name: str) -> Backend:
    """The backend registered as `name`, built. Raises BackendError when there is none, or it is broken."""
    entries = _entries()
    if name not in entries:
        raise BackendError(
            "no backend is called {!r}{}. A backend comes with a package that registers it under the entry point "
            "group {!r}: install that package for {}".format(
                name, nearest(name, entries, "installed backends"), GROUP, sys.executable
            )
        )
    values = sorted({entry.value for entry in entries[name]})
    if len(values) > 1:
        raise BackendError("backend {!r} is registered twice: {}; uninstall one".format(name, " and ".join(values)))
    try:
        backend = entries[name][0].load()()
    except Exception as error:  # a plug-in's import and constructor are foreign code and raise whatever they like
        raise BackendError(
            "backend {!r} ({}) cannot be loaded: {}: {}; reinstall or uninstall its package".format(
                name, values[0], type(error).__name__, error
            )
        ) from error
    _check(name, values[0], backend)
    found: Backend = backend
    return found


def _check(name: str, value: str, backend: Any) -> None:
    if not isinstance(backend, Backend):
        lacking = [member for member in ("name", "Options", "probe", "open") if not hasattr(backend, member)]
        raise BackendError("backend {!r} ({}) is none: it has no {}".format(name, value, ", ".join(lacking)))
    version = getattr(backend, "api_version", 1)
    if version != API_VERSION:
        raise BackendError(
            "backend {!r} ({}) is made for version {} of the contract, this Flyball has {}; update the older "
            "one".format(name, value, version, API_VERSION)
        )


def _entries() -> Dict[str, List[Any]]:
    found: Any = importlib.metadata.entry_points()
    # Python 3.8 and 3.9 give a dict by group, and one entry per place on sys.path that shows the same package.
    group: Iterable[Any] = found.select(group=GROUP) if hasattr(found, "select") else found.get(GROUP, ())
    entries: Dict[str, List[Any]] = {}
    for entry in group:
        entries.setdefault(entry.name, []).append(entry)
    return entries
