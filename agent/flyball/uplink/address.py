"""Where the uplink goes and as whom, from the configuration.

config.Uplink -> topics.Device, transport.Settings; ConfigError for an identity that the protocol does not allow

Pure, but for `credentials_problem` and `certificate_trouble`, which read the files that are named.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flyball import config
from flyball.errors import ConfigError, CredentialError, MessageError
from flyball.uplink import certificate, tls, topics
from flyball.uplink.transport import Proxy, Settings

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
DEFAULT_PATH = "/mqtt"  # of a WebSocket, as most brokers have it
DEFAULT_PROXY_PORT = 3128


def device(settings: config.Uplink) -> topics.Device:
    try:
        return topics.Device(settings.tenant, settings.device_id())
    except MessageError as error:
        raise ConfigError("the uplink has no usable identity", [f"uplink.tenant, uplink.device: {error}"]) from error


def broker(settings: config.Uplink, connect_timeout_s: float, *, ignore_dates: bool = False) -> Settings:
    """`ignore_dates` says that the clock cannot be trusted; it counts where the configuration allows for that."""
    url = urlsplit(settings.broker)
    return Settings(
        host=url.hostname or "",
        port=url.port or DEFAULT_PORTS[url.scheme],
        client_id=settings.device_id(),
        keepalive_s=settings.keepalive_s,
        connect_timeout_s=connect_timeout_s,
        username=settings.username,
        password_file=settings.password_file,
        path=(url.path or DEFAULT_PATH) if url.scheme in ("ws", "wss") else None,
        tls=_tls(settings, ignore_dates) if url.scheme in ("mqtts", "wss") else None,
        proxy=_proxy(settings),
    )


def watched_files(settings: config.Uplink) -> tuple[str, ...]:
    """What a person, or a machine, may replace while the daemon runs."""
    of_tls = settings.tls
    files = (of_tls.ca_file, of_tls.certificate_file, of_tls.key_file, settings.password_file)
    return tuple(file for file in (*files, settings.proxy_password_file) if file)


def credentials_problem(settings: config.Uplink) -> str:
    """Why the files that are there now cannot be used; "" when they can."""
    made = broker(settings, 1.0)
    try:
        if made.tls is not None:
            tls.context(made.tls)
    except CredentialError as error:
        return str(error)
    return ""


def certificate_trouble(settings: config.Uplink, now_s: float | None) -> str:
    """What is wrong with the device's own certificate, or will soon be; "" when nothing is, or there is none."""
    file = settings.tls.certificate_file
    if not file:
        return ""
    try:
        found = certificate.trouble(certificate.read(file), settings.device_id(), now_s)
    except CredentialError as error:
        return str(error)
    return f"the certificate {file}: {found}" if found else ""


def _tls(settings: config.Uplink, ignore_dates: bool) -> tls.Tls:
    return tls.Tls(
        ca_file=settings.tls.ca_file,
        certificate_file=settings.tls.certificate_file,
        key_file=settings.tls.key_file,
        server_name=settings.tls.server_name,
        ignore_dates=ignore_dates and settings.tls.ignore_dates_unsynced,
    )


def _proxy(settings: config.Uplink) -> Proxy | None:
    if not settings.proxy:
        return None
    url = urlsplit(settings.proxy)
    return Proxy(
        host=url.hostname or "",
        port=url.port or DEFAULT_PROXY_PORT,
        username=settings.proxy_username,
        password_file=settings.proxy_password_file,
    )
