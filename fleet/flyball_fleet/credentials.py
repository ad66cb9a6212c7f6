"""What the fleet's side shows the broker: a password, a certificate; and whom it trusts.

files of Address -> password, SSLContext, or LinkError that names the option and the file

Never shows what is in a file.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from flyball.errors import LinkError
from flyball_fleet.address import Address


def password(address: Address) -> str | None:
    """Read at every connect. Raises LinkError."""
    if not address.password_file:
        return address.password or None
    try:
        return Path(address.password_file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LinkError(f"--password-file {address.password_file}: {_why(error)}") from error


def tls(address: Address) -> ssl.SSLContext:
    """Raises LinkError."""
    for option, file in (("--ca", address.ca), ("--cert", address.cert), ("--key", address.key)):
        try:  # what ssl raises names no file
            if file:
                Path(file).read_bytes()
        except OSError as error:
            raise LinkError(f"{option} {file}: {_why(error)}") from error
    try:
        context = ssl.create_default_context(cafile=address.ca or None)
    except OSError as error:
        raise LinkError(f"--ca {address.ca}: no certificates in PEM ({_why(error)})") from error
    try:
        if address.cert:
            context.load_cert_chain(address.cert, address.key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise LinkError(
            f"--cert {address.cert}, --key {address.key}: no pair in PEM without a passphrase ({_why(error)})"
        ) from error
    return context


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
