"""Whether somebody else speaks under our name.

own status, heard back from the broker -> ours | a stranger's, alive -> alarm duplicate_identity

mosquitto before 2.0.15 only hangs up when a session is taken over, so two devices of one id would throw each other out
for ever. What gives the other away is the retained status: it is not what we said last. Not a stranger is what stood
there before we first spoke (a device that was re-flashed), an earlier session of this store (a broker that forgot), one
that has said goodbye or is lost, and one that was seen before and has not moved since. Of two copies of one store each
takes the other's lower session for its own past; the other then meets a higher one, or an equal one it never said.
Pure.
"""

from __future__ import annotations

from flyball.errors import MessageError
from flyball.uplink.messages import Status, decode

ALIVE = frozenset({"init", "ready", "sleeping"})
REMEMBERED = 64  # of what we said ourselves; a session says four things


class Identity:
    def __init__(self) -> None:
        self._ours: dict[bytes, None] = {}
        self._epoch, self._session = "", 0
        self._seen: tuple[str, int] | None = None
        self.spoken = False  # whether the broker has acknowledged a status of ours

    def begin(self, epoch: str, session: int) -> None:
        self._epoch, self._session = epoch, session

    def said(self, payload: bytes) -> None:
        """A status, or a will, of ours."""
        self._ours[payload] = None
        while len(self._ours) > REMEMBERED:
            del self._ours[next(iter(self._ours))]

    def acknowledged(self) -> None:
        self.spoken = True

    def stranger(self, payload: bytes) -> str:
        """Who else is alive under our name, in words; "" when nobody is."""
        try:
            status = decode(payload, Status)
        except MessageError:
            return ""  # an empty or broken payload: somebody cleans up by hand
        past = status.epoch == self._epoch and status.session < self._session
        if payload in self._ours or past or status.state not in ALIVE:
            return ""
        before, self._seen = self._seen, (status.epoch, status.session)
        if not self.spoken or before == self._seen:
            return ""
        return f"epoch {status.epoch}, session {status.session}"
