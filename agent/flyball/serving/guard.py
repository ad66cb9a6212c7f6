"""Keeps web pages away from the TCP listeners: a Host header check (DNS rebinding) and no cross-origin requests.

ASGI scope -> Host known? Origin the same? -> the app, or 421 / 403

A browser on this machine or network runs pages of strangers. It sends their name in Host (after rebinding it to our
address) and in Origin (when a page asks another site); a program sends an address or a name that was configured.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Any

from flyball.serving.web import Asgi, Receive, Scope, Send, error_reply, send

_REMEMBERED = 64  # Host headers found good, so that the check is one set lookup


class Guard:
    """`allowed_hosts` are further names, without port, under which the machine may be called."""

    def __init__(self, app: Asgi, allowed_hosts: Collection[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in allowed_hosts)}
        self._good: set[tuple[bytes, Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, respond: Send) -> None:
        hosts: list[bytes] = []
        origin: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origin = value
        refusal = self._host_refusal(hosts, scope)
        if refusal:
            await send(respond, error_reply(421, refusal))
        elif origin is not None and not (hosts and origin.lower() == b"http://" + hosts[0].lower()):
            await send(respond, error_reply(403, f"requests from the web page {_show(origin)} are refused"))
        else:
            await self._app(scope, receive, respond)

    def _host_refusal(self, hosts: list[bytes], scope: Scope) -> str:
        """Why the Host header is not one of ours; empty when it is."""
        server = scope.get("server")
        local = server[0] if server else ""
        if len(hosts) == 1 and (hosts[0], local) in self._good:
            return ""
        if not hosts:
            # HTTP/1.0 has no Host header, and no browser speaks it.
            return "" if scope.get("http_version") == "1.0" else "the Host header is missing"
        if len(hosts) > 1:
            return "the Host header stands more than once"
        if not self._is_ours(_name(hosts[0]), local):
            return (
                f"the Host {_show(hosts[0])} is none of this daemon's names; "
                "add it to serving.allowed_hosts if it should be"
            )
        if len(self._good) < _REMEMBERED:
            self._good.add((hosts[0], local))
        return ""

    def _is_ours(self, name: str, local: str) -> bool:
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
            return address.is_loopback or address == ipaddress.ip_address(local)
        except ValueError:
            return False


def _name(host: bytes) -> str:
    """Without port, brackets and the root's dot."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


def _show(value: bytes) -> str:
    return repr(value[:80].decode("latin-1"))
