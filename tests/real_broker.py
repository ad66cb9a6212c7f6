"""A real mosquitto for tests, started and ended by them."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


class Mosquitto:
    """A real broker on a free loopback port. Its log (`log_text()`) names every packet."""

    def __init__(self, executable: str, folder: Path) -> None:
        self._executable = executable
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def start(self, extra: Sequence[str] = ()) -> None:
        """On the same port as before, with what it had saved; `extra` are lines of its configuration."""
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {self._folder}/",
            f"log_dest file {self._folder}/mosquitto.log",
            "log_type all",
            *(["user root"] if os.geteuid() == 0 else []),  # else it becomes a user who may not write here
            *extra,
        ]
        config = self._folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen([self._executable, "-c", str(config)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mosquitto does not listen on {self.port}:\n{self.log_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends it in good order: sessions and retained messages are saved."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once: what it had in memory is lost."""
        self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Drops what it had saved. To be called while it is not running."""
        (self._folder / "mosquitto.db").unlink(missing_ok=True)

    def log_text(self) -> str:
        file = self._folder / "mosquitto.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(with_signal)
            for _ in range(10):
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=1)
                    self._process = None
                    return
                # One that came after it listened and before its loop began is forgotten by mosquitto 2.0.11.
                self._process.send_signal(with_signal)
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"mosquitto did not end:\n{self.log_text()}")
