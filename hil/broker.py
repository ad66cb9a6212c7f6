"""The broker of the ping: mosquitto started here for a local target, the target's own one through ssh.

Broker: where the daemon finds it, and where this machine reaches it. `close` ends what was started.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass

from service import free_port
from targets import LocalTarget, SshTarget

_SEARCH = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin"
STANDARD_PORT = 1883


@dataclass(frozen=True)
class Broker:
    daemon_port: int  # on the target's loopback
    port: int  # on this machine's
    process: subprocess.Popen[bytes]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


def open_broker(target: LocalTarget | SshTarget) -> Broker | None:
    """None where there is none to be had."""
    if isinstance(target, LocalTarget):
        program = shutil.which("mosquitto", path=_SEARCH)
        if program is None:
            return None
        port = free_port()
        config = target.put(f"listener {port} 127.0.0.1\nallow_anonymous true\n".encode(), "mosquitto.conf")
        process = subprocess.Popen([program, "-c", config], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        broker = Broker(port, port, process)
    else:
        probe = f"import socket; socket.create_connection(('127.0.0.1', {STANDARD_PORT}), 3).close()"
        if target.run(["python3", "-c", probe]).code != 0:
            return None
        port = free_port()
        broker = Broker(STANDARD_PORT, port, target.forward(port, STANDARD_PORT))
    _wait(broker)
    return broker


def _wait(broker: Broker, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", broker.port), 1).close()
            return
        except OSError as error:
            if broker.process.poll() is not None or time.monotonic() > deadline:
                broker.close()
                raise AssertionError(f"no broker at 127.0.0.1:{broker.port}: {error}") from error
            time.sleep(0.1)
