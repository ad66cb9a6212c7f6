"""The real daemon with a ladder, a configuration and a folder of its own, for as long as it is looked at.

ladder's folder -> configuration in a temporary folder -> daemon -> a client on its socket

The only changes later are its limits, made as an operator makes them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from flyball.client import Client
from flyball.control_api import LadderView
from flyball.document import quoted
from flyball.errors import EX_CONFIG, ConfigError, ControlError, LadderError
from flyball.ladder.manifest import LadderFolder

_START_S = 30.0
_SOCKET_MOST = 107  # bytes of a Unix socket's path (unix(7))
_SOCKET = "flyball.sock"

CONFIG = """\
# The demonstration's own configuration: short dwell times, so that everything is seen within a minute.
[paths]
state = {state}
socket = {socket}
[serving]
http = ""
metrics = ""
[sensing]
period_s = 0.5
[governor]
period_s = 0.5
window_s = 2.0
down_windows = 2
of_windows = 3
up_windows = 4
headroom = 0.9
dwell_s = 2.0
climb_backoff_s = 4.0
climb_backoff_max_s = 8.0
[ladder.{ladder}]
path = {path}
"""


def short_place() -> str | None:
    """Where the demonstration's folder goes: in TMPDIR, unless a socket's path would be too long there."""
    inside = Path(tempfile.gettempdir()) / "flyball-demo-12345678" / _SOCKET
    return "/tmp" if len(os.fsencode(inside)) > _SOCKET_MOST else None  # noqa: S108 - a folder of mkdtemp's in it


def configuration(home: Path, folder: LadderFolder) -> str:
    return CONFIG.format(
        state=quoted(str(home / "state")),
        socket=quoted(str(home / _SOCKET)),
        ladder=quoted(folder.name),
        path=quoted(str(folder.root.resolve())),
    )


@contextmanager
def private_daemon(home: Path, folder: LadderFolder) -> Iterator[Client]:
    """The real daemon with a configuration of its own, and a client on its socket. Raises ControlError, and
    ConfigError or LadderError for what is to be corrected first."""
    socket = home / _SOCKET
    config = home / "flyball.toml"
    config.write_text(configuration(home, folder), encoding="utf-8")
    log = home / "daemon.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flyball.daemon", "--config", str(config)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    client = Client(socket)
    try:
        wait_until_ready(client, process, log)
        yield client
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s:
        if process.poll() is not None:
            told = log.read_text(errors="replace").strip()
            if process.returncode == EX_CONFIG:
                raise ConfigError(told.removeprefix("error: "))
            raise ControlError(f"the daemon ended with exit code {process.returncode}:\n{told}")
        ladders: Sequence[LadderView] = ()  # none until its accelerators have been looked for
        with suppress(ControlError):  # not there yet
            ladders = client.status().ladders
        failed = [f"{e.status.name}: {e.status.error}" for e in ladders if e.status.state == "failed"]
        if failed:
            raise LadderError("the ladder cannot be served here", failed)
        if ladders and all(entry.status.state == "ready" for entry in ladders):
            return
        time.sleep(0.05)
    raise ControlError(f"the daemon was not ready within {_START_S:g} s:\n{log.read_text(errors='replace')}")


def set_limit(client: Client, home: Path, limit_s: float, quantile: float = 0.95) -> None:
    """Writes the limit beside the configuration and has the daemon read it again, as an operator would."""
    (home / "conf.d").mkdir()
    limits = f"[governor.limits]\ndeadline_ms = {limit_s * 1e3:.3f}\nquantile = {quantile:g}\n"
    (home / "conf.d/limit.toml").write_text(limits)
    problems = client.reload().problems
    if problems:
        raise ControlError("the daemon did not take the limit: " + "; ".join(problems))
