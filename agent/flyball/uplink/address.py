"""Where the uplink goes and as whom, from the configuration.

config.Uplink -> topics.Device, mqtt.Settings; ConfigError for an identity that the protocol does not allow. Pure.
"""

from __future__ import annotations

from flyball import config
from flyball.errors import ConfigError, MessageError
from flyball.uplink import topics
from flyball.uplink.mqtt import Settings

DEFAULT_PORT = 1883


def device(settings: config.Uplink) -> topics.Device:
    try:
        return topics.Device(settings.tenant, settings.device_id())
    except MessageError as error:
        raise ConfigError("the uplink has no usable identity", [f"uplink.tenant, uplink.device: {error}"]) from error


def broker(settings: config.Uplink, client_id: str, connect_timeout_s: float) -> Settings:
    host, _, port = settings.broker.removeprefix("mqtt://").partition(":")
    return Settings(
        host=host,
        port=int(port or DEFAULT_PORT),
        client_id=client_id,
        keepalive_s=settings.keepalive_s,
        connect_timeout_s=connect_timeout_s,
        username=settings.username,
        password_file=settings.password_file,
    )
