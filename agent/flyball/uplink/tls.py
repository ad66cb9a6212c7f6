"""TLS to the broker: its certificate checked, ours shown.

files -> context -> SSLContext, or CredentialError that names the key; a failed handshake -> explained

Read at every connection and never kept, so that files that were replaced count from then on; Watch tells that they
were. Never connects without checking the broker's certificate and its name: there is no key for that.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from flyball.errors import CredentialError, LinkError

# X509_V_FLAG_NO_CHECK_TIME, OpenSSL's x509_vfy.h; Python has no name for it.
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)

_DATES = "the wall clock of this machine may be wrong (uplink.tls.ignore_dates_unsynced)"
# X509_V_ERR_*, x509_vfy.h.
_HINTS = {
    9: f"its certificate is not valid yet; {_DATES}",
    10: f"its certificate has expired, or {_DATES}",
    18: "its certificate is signed by itself alone; put it, or better a CA's, into uplink.tls.ca_file",
    19: "its CA is not among those of uplink.tls.ca_file",
    20: "its CA is not among those of uplink.tls.ca_file",
    62: "its certificate is for another name (uplink.broker, uplink.tls.server_name)",
    64: "its certificate is for another address (uplink.broker, uplink.tls.server_name)",
}


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Without `ca_file` the system's certificates count; with `certificate_file` the broker knows us by it."""

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    server_name: str = ""
    ignore_dates: bool = False  # of the broker's certificate: an unsynchronized clock cannot judge them


def context(tls: Tls) -> ssl.SSLContext:
    """Raises CredentialError when a file cannot be used."""
    try:
        made = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=tls.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise CredentialError(
            f"uplink.tls.ca_file: {tls.ca_file}: {_why(error)}; expected certificates (PEM)"
        ) from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ignore_dates:
        made.verify_flags |= _NO_CHECK_TIME
    if tls.certificate_file:
        key_file = tls.key_file or tls.certificate_file
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            made.load_cert_chain(tls.certificate_file, key_file, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise CredentialError(
                f"uplink.tls.certificate_file, key_file: {tls.certificate_file}, {key_file}: {_why(error)}; "
                "expected a certificate and its key (PEM, not encrypted) that this process may read"
            ) from error
    return made


def explain(error: Exception, where: str) -> LinkError:
    """What a handshake that failed has to say."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _HINTS.get(error.verify_code, "")
        return LinkError(f"the broker {where} is not trusted: {error.verify_message}" + (f"; {hint}" if hint else ""))
    text = f"{error}"
    if "alert" in text.lower() and any(word in text.lower() for word in ("certificate", "unknown ca", "access denied")):
        return CredentialError(f"the broker {where} does not accept our certificate: {_why(error)} (uplink.tls)")
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE"):
        return LinkError(f"what listens at {where} does not speak TLS: {_why(error)}; is the port right?")
    hint = "; it may want a certificate of ours that it trusts (uplink.tls.certificate_file)" if "EOF" in text else ""
    return LinkError(f"no TLS connection to {where}: {_why(error)}{hint}")


class Watch:
    """Whether files are others than those that were seen: by inode, size and time of change."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = tuple(files)
        self._seen = self._look()

    def seen(self) -> None:
        self._seen = self._look()

    def changed(self) -> bool:
        return bool(self._files) and self._look() != self._seen

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_identity, self._files))


def _identity(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None  # away for a moment, or for good: as different from what was there as any other
    return found.st_ino, found.st_size, found.st_mtime_ns


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason).replace("_", " ").lower()
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
