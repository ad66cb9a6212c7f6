"""What a broker can do, and what it is therefore spared.

CONNACK properties -> offered() ; refusals of earlier connections -> after() ; both -> & -> what this connection does

A broker without retained messages, wildcards or QoS 1, or with smaller packets than ours, ends the connection on the
first publication that it cannot take (MQTT 5, 3.2.2.3); then every reconnect would end the same way. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

MAXIMUM_PACKET = 256 * 1024
# Reason codes, MQTT 5, 2.4.
TOPIC_ALIAS_INVALID, PACKET_TOO_LARGE = 0x94, 0x95
RETAIN_NOT_SUPPORTED, QOS_NOT_SUPPORTED, WILDCARDS_NOT_SUPPORTED = 0x9A, 0x9B, 0xA2
LEAST_PACKET = 1024  # below it not even a status fits; who refuses that has other troubles


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The values that MQTT 5 says are meant where a broker says nothing, except for the aliases: there none."""

    receive_maximum: int = 65535
    maximum_packet: int = MAXIMUM_PACKET
    topic_aliases: int = 65535
    qos: int = 1  # of ours; 2 is never asked for
    retain: bool = True
    wildcards: bool = True

    def __and__(self, other: Capabilities) -> Capabilities:
        return Capabilities(
            receive_maximum=min(self.receive_maximum, other.receive_maximum),
            maximum_packet=min(self.maximum_packet, other.maximum_packet),
            topic_aliases=min(self.topic_aliases, other.topic_aliases),
            qos=min(self.qos, other.qos),
            retain=self.retain and other.retain,
            wildcards=self.wildcards and other.wildcards,
        )

    def after(self, code: int | None, largest: int | None = None) -> Capabilities:
        """The same, less what a refusal with this reason code was about; `largest` is the size of the largest packet
        that was under way."""
        if code == RETAIN_NOT_SUPPORTED:
            return replace(self, retain=False)
        if code == QOS_NOT_SUPPORTED:
            return replace(self, qos=0)
        if code == WILDCARDS_NOT_SUPPORTED:
            return replace(self, wildcards=False)
        if code == TOPIC_ALIAS_INVALID:
            return replace(self, topic_aliases=0)
        if code == PACKET_TOO_LARGE and largest is not None:
            return replace(self, maximum_packet=max(LEAST_PACKET, min(self.maximum_packet, largest - 1)))
        return self

    def missing(self) -> tuple[str, ...]:
        """In words, what of the protocol does not work; the smaller limits are no loss."""
        found = []
        if not self.retain:
            found.append("retained messages: who comes later sees no status until it asks for a rebirth")
        if self.qos < 1:
            found.append("QoS 1: what is sent while the link breaks is lost without a trace")
        if not self.wildcards:
            found.append("wildcards in subscriptions: no command can arrive")
        return tuple(found)


EVERYTHING = Capabilities()


def offered(properties: Any) -> Capabilities:
    """From a CONNACK's properties, each an attribute by its name in the specification where it was sent."""
    return Capabilities(
        receive_maximum=getattr(properties, "ReceiveMaximum", 65535),
        maximum_packet=min(getattr(properties, "MaximumPacketSize", MAXIMUM_PACKET), MAXIMUM_PACKET),
        topic_aliases=getattr(properties, "TopicAliasMaximum", 0),
        qos=min(getattr(properties, "MaximumQoS", 2), 1),
        retain=bool(getattr(properties, "RetainAvailable", 1)),
        wildcards=bool(getattr(properties, "WildcardSubscriptionAvailable", 1)),
    )
