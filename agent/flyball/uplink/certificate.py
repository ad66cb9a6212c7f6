"""What the device's own certificate says: whose it is, and until when.

PEM -> DER -> common name, end of validity -> trouble in words

Reads the two fields of X.509 (RFC 5280, 4.1) that a broker judges us by, and nothing else: trust is OpenSSL's business
(tls.py). Python's ssl tells them of the other side's certificate only.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flyball.errors import CredentialError

WARN_S = 14 * 86400.0
COMMON_NAME = bytes.fromhex("550403")  # 2.5.4.3
_VERSION, _OBJECT, _UTC_TIME = 0xA0, 0x06, 0x17


@dataclass(frozen=True, kw_only=True)
class Certificate:
    common_name: str
    ends_s: float  # Unix seconds


def read(file: str) -> Certificate:
    """The first certificate of a PEM file. Raises CredentialError."""
    try:
        text = Path(file).read_text(encoding="ascii")
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        first = text[text.index(begin) : text.index(end) + len(end)]
        return _decode(ssl.PEM_cert_to_DER_cert(first))
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise CredentialError(
            f"uplink.tls.certificate_file: {file}: no certificate that can be read: {error}"
        ) from error


def trouble(certificate: Certificate, device_id: str, now_s: float | None) -> str:
    """What somebody should do something about, or "". `now_s` is None while the wall clock is not trusted."""
    if certificate.common_name != device_id:
        return (
            f"its common name is {certificate.common_name!r} and this device is {device_id!r}: access rules that go by "
            "the certificate will deny what it says (uplink.device, uplink.tls.certificate_file)"
        )
    if now_s is not None and now_s > certificate.ends_s - WARN_S:
        ends = datetime.datetime.fromtimestamp(certificate.ends_s, datetime.timezone.utc)
        return f"it {'ended' if now_s > certificate.ends_s else 'ends'} on {ends:%Y-%m-%d %H:%M} UTC; renew it"
    return ""


def _decode(der: bytes) -> Certificate:
    (_, whole) = next(_values(der))
    (_, to_be_signed) = next(_values(whole))
    fields = [f for f in _values(to_be_signed) if f[0] != _VERSION]
    # serialNumber, signature, issuer, validity, subject
    (_, _), (kind, ends) = _values(fields[3][1])
    names = [dict(_pairs(pair)) for _, group in _values(fields[4][1]) for _, pair in _values(group)]
    common = [name[COMMON_NAME] for name in names if COMMON_NAME in name]
    return Certificate(common_name=common[-1] if common else "", ends_s=_time(kind, ends.decode("ascii")))


def _pairs(attribute: bytes) -> Iterator[tuple[bytes, str]]:
    (kind, name), (_, value) = _values(attribute)
    if kind == _OBJECT:
        yield name, value.decode("utf-8", "replace")


def _values(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of every element; ValueError, or IndexError, where it is cut off."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        if at + length > len(der):
            raise ValueError("it is cut off")
        yield tag, der[at : at + length]
        at += length


def _time(kind: int, text: str) -> float:
    if kind == _UTC_TIME:  # two digits of the year; from 50 on they are of the last century (RFC 5280, 4.1.2.5.1)
        text = ("19" if text >= "50" else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
