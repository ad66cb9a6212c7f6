"""Where the broker is and who we are there.

mqtt://host:port, mqtts://host:port, options -> Address, or ConfigError. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from flyball.errors import ConfigError

PORTS = {"mqtt": 1883, "mqtts": 8883}
DEFAULT = "mqtt://127.0.0.1:1883"


@dataclass(frozen=True, kw_only=True)
class Address:
    """`password_file` is read at every connect. `ca`, `cert` and `key` are PEM files and go with TLS; without `ca` the
    system's authorities count."""

    host: str
    port: int
    tls: bool = False
    username: str = ""
    password: str = ""
    password_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse(
    url: str, *, username: str = "", password_file: str = "", ca: str = "", cert: str = "", key: str = ""
) -> Address:
    """Raises ConfigError with every mistake found."""
    problems = []
    try:
        parts = urlsplit(url if "://" in url else f"mqtt://{url}")
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError("the broker's address cannot be used", [f"--broker {_hidden(url)}: {error}"]) from error
    if scheme not in PORTS:
        problems.append(f"--broker: expected mqtt://HOST:PORT or mqtts://HOST:PORT, found {_hidden(url)}")
    if not host:
        problems.append(f"--broker: {_hidden(url)} names no host")
    if (ca or cert or key) and scheme == "mqtt":
        problems.append("--ca, --cert and --key go with mqtts://: a plain connection has no certificates")
    if password_file and not (username or parts.username):
        problems.append("--password-file goes with --username")
    if bool(cert) != bool(key):
        problems.append("--cert and --key go together")
    if problems:
        raise ConfigError("the broker's address cannot be used", problems)
    return Address(
        host=host,
        port=port or PORTS[scheme],
        tls=scheme == "mqtts",
        username=username or unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        password_file=password_file,
        ca=ca,
        cert=cert,
        key=key,
    )


def _hidden(url: str) -> str:
    """Without the password."""
    return repr(re.sub(r"(//[^:/@]*):[^@]*@", r"\1:***@", url))
