"""The Raspberry Pi's firmware, asked in words.

command -> /dev/vcio_gencmd | /dev/vcio (one ioctl) | the program vcgencmd -> the firmware's answer

A program is started only where the kernel offers neither device, and it is given two seconds. A refusal is final: it
is an OSError, and no other way is tried. Never makes up an answer, never keeps one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flyball.sensing.sysfs import describe

DEVICES = ("vcio_gencmd", "vcio")  # vcgencmd tries them in the same order
PROGRAMS = (Path("/usr/bin/vcgencmd"), Path("/opt/vc/bin/vcgencmd"))
PROGRAM_TIMEOUT_S = 2.0  # the kernel itself gives the firmware one second

# The mailbox's property message: total bytes, 0 (a request), tag, size of its buffer, 0 (length), 0 (error), the
# command padded to the buffer, and the word that ends the tags. The answer comes back in the same words.
TEXT_BYTES = 4096
MESSAGE = struct.Struct(f"=6I{TEXT_BYTES}sI")
TAG_COMMAND = 0x0003_0080
STATUS_SUCCESS = 0x8000_0000
# _IOWR(100, 0, char *): the size is that of a pointer, so that 0xC0086400 holds for 64-bit programs only.
IOCTL_PROPERTY = 3 << 30 | struct.calcsize("P") << 16 | 100 << 8

_ABSENT = (errno.ENOENT, errno.ENODEV, errno.ENXIO)
_DENIED = (errno.EACCES, errno.EPERM)

Ioctl = Callable[[int, int, bytearray], Any]


def ask(
    command: str,
    dev: Path = Path("/dev"),
    *,
    programs: Sequence[Path] = PROGRAMS,
    timeout_s: float = PROGRAM_TIMEOUT_S,
    ioctl: Ioctl = fcntl.ioctl,
) -> str:
    """The firmware's answer to `command` ("get_throttled" -> "throttled=0x0"), without white space at its end.

    Raises FileNotFoundError where there is no way to ask; PermissionError where this user may not; TimeoutError;
    OSError for everything else, a command that the firmware does not know included; ValueError for a command that
    does not fit.
    """
    request = encode(command)
    failures: list[tuple[int, str]] = []
    for device in (dev / name for name in DEVICES):
        try:
            message = exchange(device, request, ioctl)
        except OSError as error:
            failures.append((error.errno or errno.EIO, f"{device}: {_advise(error)}"))
        else:
            return decode(command, message)
    found = [failure for failure in failures if failure[0] not in _ABSENT]
    if found:
        # The program opens the same devices: where they are here and fail, it does no better.
        raise OSError(found[0][0], "; ".join(text for _, text in found))
    for program in programs:
        if os.access(program, os.X_OK):
            return run(program, command, timeout_s)
    raise FileNotFoundError(errno.ENOENT, f"neither {dev}/{f' nor {dev}/'.join(DEVICES)} nor vcgencmd is here")


def encode(command: str) -> bytearray:
    """The request as the kernel takes it: 4124 bytes. Raises ValueError for what is not ASCII or too long."""
    text = command.encode("ascii")
    if len(text) >= TEXT_BYTES:
        raise ValueError(f"expected a command of less than {TEXT_BYTES} characters, found {len(text)}")
    return bytearray(MESSAGE.pack(MESSAGE.size, 0, TAG_COMMAND, TEXT_BYTES, 0, 0, text, 0))


def exchange(device: Path, request: bytearray, ioctl: Ioctl = fcntl.ioctl) -> bytes:
    """One round trip; `request` stays as it is. Raises OSError."""
    message = bytearray(request)
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        ioctl(descriptor, IOCTL_PROPERTY, message)
    finally:
        os.close(descriptor)
    return bytes(message)


def decode(command: str, message: bytes) -> str:
    """The answer in a message that came back. Raises OSError."""
    _, status, _, _, _, error, text, _ = MESSAGE.unpack(message)
    if status != STATUS_SUCCESS:
        raise OSError(errno.EIO, f"the firmware did not take {command!r} (status {status:#010x})")
    answer, end, _ = text.partition(b"\0")
    if not end:
        raise OSError(errno.EMSGSIZE, f"the firmware's answer to {command!r} is cut at {TEXT_BYTES} bytes")
    said = answer.decode("ascii", "replace")
    if error:
        raise OSError(errno.EIO, f"the firmware answers {command!r} with error {error}: {said[:80]!r}")
    return _accepted(command, said)


def run(program: Path, command: str, timeout_s: float = PROGRAM_TIMEOUT_S) -> str:
    """The same through vcgencmd. Raises TimeoutError, OSError."""
    try:
        done = subprocess.run(
            [str(program), *command.split()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        text = f"{program} {command}: no answer within {timeout_s:g} s"
        raise TimeoutError(errno.ETIMEDOUT, text) from error
    said = done.stdout.decode("ascii", "replace")
    if done.returncode != 0:
        why = done.stderr.decode("ascii", "replace").strip() or said.strip()
        raise OSError(errno.EIO, f"{program} {command}: exit status {done.returncode}: {why[:200]!r}")
    return _accepted(command, said)


def _accepted(command: str, answer: str) -> str:
    """An unknown command is answered too, in words: error=1 error_msg="Command not registered"."""
    answer = answer.rstrip()
    if answer.startswith("error="):
        raise OSError(errno.ENOSYS, f"the firmware refuses {command!r}: {answer[:80]}")
    if not answer:
        raise OSError(errno.EIO, f"the firmware answers {command!r} with nothing")
    return answer


def _advise(error: OSError) -> str:
    if error.errno not in _DENIED:
        return describe(error)
    return f"{describe(error)}: the daemon's user needs the group video, and its unit a DeviceAllow for this device"
