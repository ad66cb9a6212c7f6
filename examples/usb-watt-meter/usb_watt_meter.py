"""Power at the board's plug, from a meter in its USB supply that writes a line per reading to a serial port.

/dev/ttyUSB0 (or FLYBALL_WATT_METER) -> "5.081 V 0.612 A\\n" -> W, scope "wall" -> one reading

Many meters and every microcontroller with a current monitor can write such lines; only `parse` knows their form. The
port is opened without waiting and without becoming the terminal of this process. Nothing is written to it.
"""

from __future__ import annotations

import errno
import os
import re
import termios
from collections.abc import Sequence
from pathlib import Path

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import Gathering, Roots, SensorFailed, Unavailable

VARIABLE = "FLYBALL_WATT_METER"
FRESH_S = 2.0  # a meter that has said nothing for longer is silent: its last figure is not one of now
PLAUSIBLE = ((3.0, 30.0), (0.0, 10.0))  # volts and amperes of a USB supply
_LINE = re.compile(rb"\s*(\d+(?:\.\d+)?)\s*V\s+(\d+(?:\.\d+)?)\s*A\s*")
_LONGEST = 256
_MOST = 1 << 16  # bytes taken at once: a port that never ends must not keep the read


def parse(line: bytes) -> float:
    """Watts. Raises ValueError for what is no reading."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"expected '<volts> V <amperes> A', found {line[:40]!r}")
    for number, (low, high), unit in zip(match.groups(), PLAUSIBLE, "VA", strict=True):
        if not low <= float(number) <= high:
            raise ValueError(f"expected {low:g} to {high:g} {unit}, found {float(number):g} {unit}")
    return float(match[1]) * float(match[2])


class UsbWattMeter:
    name = "usb-watt-meter"
    fastest_s = 0.1

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._path = Path(os.environ.get(VARIABLE) or roots.dev / "ttyUSB0")
        self._port: int | None = None
        self._rest = b""
        self._synced = False
        self._heard_s = float("-inf")

    def read(self, now_s: float) -> Sequence[Reading]:
        gathering = Gathering(self.name, now_s)
        with gathering.attempt(str(self._path)):
            *lines, self._rest = (self._rest + self._waiting())[-8 * _LONGEST :].split(b"\n")
            if lines and not self._synced:  # what came first after opening may be the end of a line
                self._synced, lines = True, lines[1:]
            if lines:
                self._heard_s = now_s
                gathering.add("power", "supply", parse(lines[-1]), "wall", uncertainty=0.02)
            elif now_s - self._heard_s > FRESH_S:
                raise SensorFailed(f"{self._path}: the meter has said nothing for {FRESH_S:g} s")
        return gathering.result()

    def _waiting(self) -> bytes:
        """What has come since the last call. Raises Unavailable, OSError."""
        if self._port is None:
            try:
                self._port = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise Unavailable(f"{self._path}: no meter is attached") from None
            self._synced, self._rest = False, b""
            try:
                _make_raw(self._port)
            except termios.error as error:  # no OSError
                self._close()
                raise OSError(error.args[0], f"no serial port: {os.strerror(error.args[0])}") from error
        data = b""
        try:
            while len(data) < _MOST:
                chunk = os.read(self._port, 4096)
                if not chunk:  # so a port answers whose adapter has been unplugged
                    raise OSError(errno.ENODEV, "the meter has been unplugged")
                data += chunk
        except BlockingIOError:
            return data
        except OSError:
            self._close()  # opened again at the next read
            raise
        return data

    def _close(self) -> None:
        if self._port is not None:
            os.close(self._port)
            self._port = None


def _make_raw(port: int) -> None:
    """115200 baud, 8N1, without the line editing of a terminal. Raises termios.error."""
    settings = termios.tcgetattr(port)
    settings[0] = settings[1] = settings[3] = 0  # input, output and local modes
    settings[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
    settings[4] = settings[5] = termios.B115200
    settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0  # with 0 an idle port would read as an unplugged one
    termios.tcsetattr(port, termios.TCSANOW, settings)
