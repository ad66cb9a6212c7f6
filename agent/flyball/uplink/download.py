"""A file from a host that the configuration names, by https, checked before anybody opens it.

url -> host on the list -> https, certificate checked -> [redirect: the same checks] -> size, free space -> disk, hashed

Follows no redirect to another place than the list allows, sends no credentials, and gives back a file only when its
SHA-256 is the one that was asked for. Blocking: runs in a thread of its own, and looks at `cancelled` all the time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import urllib.parse
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flyball.errors import LadderError

if TYPE_CHECKING:  # 4 MB that a daemon which installs nothing should not carry
    import http.client

MOST_REDIRECTS = 3
TIMEOUT_S = 30.0  # without a byte
CHUNK = 64 * 1024
SPARE_BYTES = 64 << 20  # of the disk, left to everybody else
PORT = 443

Progress = Callable[[int, int | None], None]  # bytes so far, and in all where the server says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`hosts` as the configuration lists them: HOST, or HOST:PORT for another port than 443."""

    hosts: tuple[str, ...]
    ca_file: str = ""
    most_bytes: int = 512 << 20


def check_url(url: str, hosts: Collection[str]) -> tuple[str, int, str]:
    """Host, port, and path with query. Raises LadderError for what may not be fetched from."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise LadderError(f"url: expected printable ASCII, found {shown(url)!r}")
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or PORT
    except ValueError as error:
        raise LadderError(f"url: {error}: {shown(url)!r}") from error
    if parts.scheme != "https":
        raise LadderError(f"url: expected https://..., found {shown(url)!r}")
    if parts.username is not None or parts.password is not None:
        raise LadderError("url: a name and a password do not belong into it")
    if (host, port) not in {_host(h) for h in hosts}:
        listed = ", ".join(hosts) or "none"
        raise LadderError(f"url: {host}:{port} is not among uplink.commands.install_hosts ({listed})")
    return host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def fetch(url: str, sha256: str, source: Source, target: Path, cancelled: threading.Event, progress: Progress) -> None:
    """Raises LadderError; the file is then not there."""
    import http.client
    import ssl

    try:
        context = ssl.create_default_context(cafile=source.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for _ in range(MOST_REDIRECTS + 1):
            host, port, path = check_url(url, source.hosts)
            connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
            try:
                connection.request("GET", path, headers={"Accept-Encoding": "identity", "User-Agent": "flyball"})
                answer = connection.getresponse()
                if answer.status in (301, 302, 303, 307, 308):
                    url = urllib.parse.urljoin(url, answer.getheader("Location") or "")
                    continue
                if answer.status != 200:
                    raise LadderError(f"{shown(url)}: expected status 200, found {answer.status} {answer.reason[:80]}")
                _store(answer, url, sha256, source.most_bytes, target, cancelled, progress)
                return
            finally:
                connection.close()
        raise LadderError(f"{shown(url)}: more than {MOST_REDIRECTS} redirects")
    except (OSError, http.client.HTTPException) as error:
        target.unlink(missing_ok=True)
        raise LadderError(f"{shown(url)}: cannot be fetched: {error or type(error).__name__}") from error
    except LadderError:
        target.unlink(missing_ok=True)
        raise


def _store(
    answer: http.client.HTTPResponse,
    url: str,
    sha256: str,
    most_bytes: int,
    target: Path,
    cancelled: threading.Event,
    progress: Progress,
) -> None:
    total = answer.length
    if total is not None and total > most_bytes:
        raise LadderError(
            f"{shown(url)}: {total} bytes, expected at most {most_bytes} (uplink.commands.install_max_mib)"
        )
    _check_space(target, total or 0)
    digest, done = hashlib.sha256(), 0
    with target.open("xb") as file:
        while chunk := answer.read(CHUNK):
            if cancelled.is_set():
                raise LadderError(f"{shown(url)}: the download was cancelled")
            done += len(chunk)
            if done > most_bytes:
                raise LadderError(f"{shown(url)}: more than {most_bytes} bytes (uplink.commands.install_max_mib)")
            digest.update(chunk)
            file.write(chunk)
            if done % (64 * CHUNK) < len(chunk):
                _check_space(target, 0)
            progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise LadderError(f"{shown(url)}: cut off after {done} of {total} bytes")
    if digest.hexdigest() != sha256:
        raise LadderError(f"{shown(url)}: expected sha256 {sha256}, found {digest.hexdigest()} ({done} bytes)")


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    # Three times: the download, what is unpacked of it, and the copy in the store.
    if free < 3 * needed + SPARE_BYTES:
        raise LadderError(f"{target.parent}: {free} bytes are free, expected {3 * needed + SPARE_BYTES}; free space")


def shown(url: str) -> str:
    """For errors, which the whole tenant may read: without the query, where links that are good for a while have their
    signature, and without a password."""
    head, mark, _ = url.partition("?")
    return f"{re.sub('//[^/]*@', '//***@', head)[:200]}{mark and '?...'}"


def _host(listed: str) -> tuple[str, int]:
    name, _, port = listed.lower().partition(":")
    return name, int(port or PORT)
