"""What the fleet's orders do here: the uplink's ports over store, catalog, configuration and the process itself.

order -> uplink/handlers.py -> Remote -> store, catalog, reload, a child process -> result or FlyballError

Built by the daemon, like everything that knows several rooms. Decides nothing about who may order what.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from flyball import __version__
from flyball.config import Config
from flyball.engine.catalog import EngineCatalog
from flyball.engine.devices import list_devices
from flyball.errors import ConfigError, LadderError, UnavailableError, WorkerError
from flyball.ladder.manifest import LadderFolder, load
from flyball.ladder.store import Store
from flyball.measure.check import check
from flyball.ports import Readings, ReloadReport, Steering
from flyball.uplink import handlers
from flyball.uplink.commands import Handler
from flyball.uplink.configuring import Configuring, Tables
from flyball.uplink.diagnosis import Section, diag, logs
from flyball.uplink.download import Source
from flyball.uplink.install import InUse, install, rollback
from flyball.uplink.logbook import Logbook
from flyball.uplink.redaction import HIDDEN

_CHILD_SPARE_S = 120.0  # of a measurement, for opening and closing beside the measured seconds
_DOCTOR_S = 60.0
_SERVES = ("ready", "degraded", "silent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Of the daemon. `load` reads the configuration with these tables over it and changes nothing; `overlay` says that
    they hold from the next reload on; `stuck` names loops that do not move."""

    config_path: Path | None
    store: Store
    catalog: EngineCatalog
    sensors: Readings
    config: Callable[[], Config]
    load: Callable[[Tables], Config]
    overlay: Callable[[Tables], None]
    reload: Callable[[], Awaitable[ReloadReport]]
    stuck: Callable[[], Sequence[str]]
    end: Callable[[], None]


class Remote:
    """Implements configuring.Configurable, install.Shelf, handlers.Measuring and handlers.Restarting."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def orders(
        self, configuring: Configuring, steering: Steering, logbook: Logbook, known: Collection[str]
    ) -> Sequence[Handler[Any]]:
        """Every command of this version; which of them are accepted is the configuration's. `known` are secrets."""
        settings = self._host.config()
        commands, state_dir = settings.uplink.commands, settings.paths.state_dir()
        source = Source(
            hosts=commands.install_hosts,
            ca_file=commands.install_ca_file,
            most_bytes=int(commands.install_max_mib * (1 << 20)),
        )
        return (
            handlers.ping(),
            handlers.rung(steering),
            handlers.policy(configuring),
            handlers.config(configuring),
            install(self, self.prove, source, state_dir),
            rollback(self),
            handlers.bench(self),
            diag(self._sections(), logbook, known),
            logs(logbook),
            handlers.restart(self),
        )

    # ------------------------------------------------------------------------------------------------ configuration

    def examine(self, overlay: Tables) -> Sequence[str]:
        try:
            self._host.load(overlay)
        except ConfigError as error:
            return error.problems or (str(error),)
        return ()

    async def apply(self, overlay: Tables) -> None:
        problems = self.examine(overlay)
        if problems:
            raise ConfigError("the settings do not fit the machine's own files", problems)
        self._host.overlay(overlay)
        report = await self._host.reload()
        if report.problems and not report.applied:  # else they are of ladders that could not be read before either
            raise ConfigError("the settings could not be applied", report.problems)

    def unwell(self) -> Collection[str]:
        ladders = [r.status() for r in self._host.catalog.ladders()]
        found = {f"ladder {s.name} is {s.state}" for s in ladders if s.state in ("failed", "silent")}
        return found | {f"the {name} loop does not move" for name in self._host.stuck()}

    # ------------------------------------------------------------------------------------------------ ladders

    async def prove(self, ladder: LadderFolder) -> None:
        """Every rung that can run here, opened and compared with its canary. Raises LadderError."""
        wanted = {kind for rung in ladder.manifest.rung for kind in rung.accelerators}
        present = {"cpu"} | ({a.kind for a in await list_devices()} if wanted - {"cpu"} else set())
        here = tuple(r for r in ladder.manifest.rung if present & set(r.accelerators))
        if not here:
            raise LadderError(f"no rung of {ladder.name} {ladder.version} can run here (it needs {sorted(wanted)})")
        only = msgspec.structs.replace(ladder, manifest=msgspec.structs.replace(ladder.manifest, rung=here))
        problems = [result.error async for result in check(only, self._host.config().engine) if result.error]
        if problems:
            raise LadderError(f"{ladder.name} {ladder.version} does not run here as it should", problems)

    async def put(self, folder: Path) -> InUse:
        store = self._host.store
        before = store.current_version(load(folder).name)
        installed = await asyncio.to_thread(store.add, folder)
        return await self._serve(installed, before)

    async def back(self, ladder: str, version: str | None) -> InUse:
        store = self._host.store
        wanted = version or store.previous(ladder)
        if wanted is None:
            known = ", ".join(store.versions(ladder)) or "none"
            raise LadderError(f"{ladder}: there is no version before; name one of those installed: {known}")
        before = store.current_version(ladder)
        folder = await asyncio.to_thread(store.use, ladder, wanted)
        return await self._serve(folder, before)

    def in_use(self, ladder: str) -> str | None:
        found = [r for r in self._host.catalog.ladders() if r.name == ladder and r.status().state in _SERVES]
        return found[0].version if found else None

    async def _serve(self, folder: LadderFolder, before: str | None) -> InUse:
        """Takes what is current into service; what does not come up is swapped back. Raises LadderError."""
        report = await self._host.reload()
        if self.in_use(folder.name) == folder.version:
            return InUse(
                ladder=folder.name, version=folder.version, before=before if before != folder.version else None
            )
        why = "; ".join(report.problems) or "it is not in service"
        if before == folder.version:
            raise LadderError(f"{folder.name} {folder.version} was current already, and does not come up: {why}")
        if before is None:
            self._host.store.remove(folder.name)
        else:
            self._host.store.use(folder.name, before)
        await self._host.reload()
        now = self.in_use(folder.name) or "nothing"
        raise LadderError(f"{folder.name} {folder.version} did not come up, so {now} is in use again: {why}")

    # ------------------------------------------------------------------------------------------------ measuring

    async def measure(
        self, ladder: str, rungs: Sequence[str], seconds: float, tell: Callable[[str, float], None]
    ) -> Sequence[Mapping[str, Any]]:
        folder = self._host.catalog.get(ladder).folder
        names = list(rungs) or [r.name for r in folder.manifest.rung]
        with tempfile.TemporaryDirectory(prefix="flyball-bench-") as place:
            found = []
            for number, name in enumerate(names):
                tell(f"measuring {name}", number / len(names))
                file = Path(place) / f"{number}.json"
                arguments = ["bench", str(folder.root), "--rung", name, "--seconds", str(seconds), "--json", str(file)]
                told = await _child([*arguments, *self._config_option()], seconds + _CHILD_SPARE_S)
                if not file.exists():
                    raise WorkerError(f"rung {name} was not measured: {_end_of(told)}")
                found.append(json.loads(file.read_text())["rungs"][0])
        return found

    # ------------------------------------------------------------------------------------------------ the process

    def restart(self) -> None:
        if not os.environ.get("INVOCATION_ID"):
            raise UnavailableError("the daemon was not started by a service manager, so nobody would start it again")
        self._host.end()

    def version(self) -> str:
        return __version__

    def _sections(self) -> Mapping[str, Section]:
        """Of a diagnosis."""

        async def status() -> Any:
            runners = self._host.catalog.ladders()
            return {"ladders": [r.status() for r in runners], "sensors": self._host.sensors.health()}

        async def software() -> Any:
            return {"flyball": __version__, "python": sys.version.split()[0], "kernel": os.uname().release}

        async def doctor() -> Any:
            told = await _child(["doctor", "--json", *self._config_option()], _DOCTOR_S)
            return [f for f in json.loads(told)["findings"] if f["severity"] != "ok"]

        async def configuration() -> Any:
            return msgspec.to_builtins(self._host.config())

        async def ladders() -> Any:
            store = self._host.store
            return {name: {"current": store.current_version(name), "installed": store.versions(name)}
                    for name in store.names()}  # fmt: skip

        return {
            "software": software, "status": status, "ladders": ladders, "configuration": configuration,
            "doctor": doctor,
        }  # fmt: skip

    def _config_option(self) -> list[str]:
        return ["--config", str(self._host.config_path)] if self._host.config_path else []


def secrets_of(config: Config) -> Sequence[str]:
    """What must not leave the machine in any words."""
    found = []
    for file in (config.uplink.password_file, config.uplink.proxy_password_file):
        try:
            password = Path(file).read_text().strip() if file else ""
        except (OSError, UnicodeDecodeError):
            continue  # the uplink itself complains
        if password and password != HIDDEN:
            found.append(password)
    return found


async def _child(arguments: Sequence[str], limit_s: float) -> str:
    """Standard output of the command line as a child. Raises WorkerError when it takes too long."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flyball", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), limit_s)
    except asyncio.TimeoutError:
        raise WorkerError(f"flyball {arguments[0]} took longer than {limit_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return (out or err).decode("utf-8", "replace")


def _end_of(text: str) -> str:
    return text.strip()[-500:] or "it said nothing"
