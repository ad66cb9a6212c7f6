"""The two kinds of target: this machine, and one reached with the system's ssh.

command -> subprocess, or ssh -> Result

Authentication is ssh's own business (keys, agent, ~/.ssh/config); FLYBALL_HIL_SSH_OPTIONS adds options.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from target import Address, Facts, Result, read_facts, shell_line


def _finish(command: Sequence[str], data: bytes | None, timeout_s: float) -> Result:
    try:
        done = subprocess.run(command, input=data or b"", capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Result(124, "", f"no answer within {timeout_s:g} s: {shell_line(command)}")
    return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


class LocalTarget:
    def __init__(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="flyball-hil-"))

    def run(self, command: Sequence[str], *, timeout_s: float = 60.0) -> Result:
        return _finish(command, None, timeout_s)

    def put(self, data: bytes, name: str) -> str:
        path = self.scratch / name
        path.write_bytes(data)
        return str(path)

    def facts(self) -> Facts:
        return read_facts(self)

    def close(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)


class SshTarget:
    def __init__(self, address: Address) -> None:
        port = [] if address.port is None else ["-p", str(address.port)]
        options = shlex.split(os.environ.get("FLYBALL_HIL_SSH_OPTIONS", ""))
        self._ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *port, *options]
        self._host = address.host
        self._scratch = self.run(["mktemp", "-d", "/tmp/flyball-hil.XXXXXX"]).checked().strip()

    def run(self, command: Sequence[str], *, timeout_s: float = 60.0) -> Result:
        return self._remote(shell_line(command), None, timeout_s)

    def put(self, data: bytes, name: str) -> str:
        path = f"{self._scratch}/{name}"
        self._remote(f"cat > {shlex.quote(path)}", data, 120.0).checked()
        return path

    def facts(self) -> Facts:
        return read_facts(self)

    def forward(self, local_port: int, remote_port: int) -> subprocess.Popen[bytes]:
        """A running ssh that carries 127.0.0.1:local_port here to 127.0.0.1:remote_port there; the caller ends it."""
        tunnel = f"127.0.0.1:{local_port}:127.0.0.1:{remote_port}"
        command = [*self._ssh, "-o", "ExitOnForwardFailure=yes", "-N", "-L", tunnel, self._host]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        self.run(["rm", "-rf", self._scratch])

    def _remote(self, line: str, data: bytes | None, timeout_s: float) -> Result:
        return _finish([*self._ssh, self._host, line], data, timeout_s)


def open_target(address: Address | None) -> LocalTarget | SshTarget:
    return LocalTarget() if address is None else SshTarget(address)
