"""A booted Debian in a container: systemd as PID 1, no network, a copy of its own.

mmdebstrap (once, cached) -> copy -> systemd-nspawn -> nsenter runs commands inside

Everything is undone by `close`: no mount, process or copy outlives it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RELEASE = "bookworm"
PACKAGES = ("systemd-sysv", "dbus", "python3", "libstdc++6", "zlib1g", "libgcc-s1")
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
TOOLS = ("mmdebstrap", "systemd-nspawn", "nsenter")


def missing() -> str:
    """What this machine lacks to run a container; empty when nothing."""
    if os.geteuid() != 0:
        return "containers need root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if not any(RELEASE in path.read_text() for path in SOURCES if path.exists()):
        return f"this machine's package sources do not have Debian {RELEASE}"
    return ""


def debian_root(cache: Path) -> Path:
    """A minimal Debian that fulfils the package's Depends, made from this machine's own package sources."""
    sources = next(path for path in SOURCES if path.exists() and RELEASE in path.read_text())
    recipe = repr((RELEASE, PACKAGES, sources.read_text()))
    root = cache / f"{RELEASE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once: the second waits and uses what the first made
        if not root.is_dir():
            new = cache / "new"
            shutil.rmtree(new, ignore_errors=True)
            command = ["mmdebstrap", "--variant=minbase", "--mode=root", "--format=directory", "--quiet"]
            command += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
            command += [f"--include={','.join(PACKAGES)}", RELEASE, str(new), str(sources)]
            subprocess.run(command, check=True, timeout=300, stdin=subprocess.DEVNULL)
            (new / "etc/machine-id").write_text("")
            # No flush after every file: a container that is thrown away need not survive a power cut.
            (new / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
            new.rename(root)
    return root


class Container:
    """`run` commands inside, reach files through `root`."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root = root
        self._log = log
        command = ["systemd-nspawn", "-q", "-D", str(root), "--private-network", "--register=no", "--keep-unit"]
        with log.open("wb") as out:
            # A session of its own: Ctrl-C at the test run must reach close(), not the container.
            self._nspawn = subprocess.Popen(
                [*command, "--console=pipe", "--boot"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._init = 0

    def boot(self, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        while True:
            if self._nspawn.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the container did not boot: {self._log.read_text(errors='replace')[-2000:]}")
            found = children.read_text().split()
            if found:
                self._init = int(found[0])
                state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
                if state in ("running", "degraded"):
                    return
            time.sleep(0.2)

    def run(self, *command: str, check: bool = True, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Raises AssertionError with the command's output when it fails, unless `check` is False."""
        enter = ["nsenter", "-t", str(self._init), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        result = subprocess.run(
            [*enter, *clean, "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def close(self) -> None:
        for sent in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):  # halt, terminate at once, kill
            if self._nspawn.poll() is None:
                self._nspawn.send_signal(sent)
                try:
                    self._nspawn.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    continue
        if self._init and Path(f"/proc/{self._init}").exists():
            os.kill(self._init, signal.SIGKILL)  # PID 1 of its namespace: takes everything inside with it


@contextmanager
def booted(cache: Path, scratch: Path) -> Iterator[Container]:
    """A container on a fresh copy of the cached root, in memory where there is plenty, else below `scratch`."""
    source = debian_root(cache)
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and min(shutil.disk_usage(memory).free, _available_bytes()) > 3 << 30
    with tempfile.TemporaryDirectory(prefix="flyball-root-", dir=memory if roomy else scratch) as place:
        root = Path(place) / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(root)], check=True)
        container = Container(root, scratch / "console.log")
        try:
            container.boot()
            yield container
        finally:
            container.close()


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)
