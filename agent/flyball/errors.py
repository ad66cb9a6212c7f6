"""Every error that Flyball raises on purpose.

FlyballError                     what is wrong, where, what to do
├── ConfigError                  the configuration cannot be used (exit code 78); carries every problem found
├── LadderError                  a manifest or an artifact cannot be used; carries every problem found
├── WorkerError                  a worker did not start, died, hung or refused
│   ├── OpenError                the backend could not open the artifact: trying again will not help
│   └── CanaryError              the rung opened, but answers its canary wrongly
├── RequestError                 the caller's mistake (HTTP 400)
│   ├── NotFoundError            no such ladder, version or rung (404)
│   ├── TooLargeError            more input than the ladder takes (413)
│   ├── UnsupportedEncodingError  the body is compressed (415)
│   └── ForbiddenError           the caller may not do that here (403)
├── UnavailableError             no rung can answer now (503)
│   └── QueueFullError           the bounded queue is full (429)
├── DeadlineError                the answer did not come in time (504)
├── UplinkError                  the fleet side; the daemon goes on without it
│   ├── MessageError             a topic or a payload that the protocol does not allow
│   ├── LinkError                the broker is not reached, refuses, or broke off; carries the reason code
│   │   └── CredentialError      it, or a proxy, does not take us for who we say: somebody has to change something
│   └── StateError               state.db cannot be opened or written
└── ControlError                 the daemon could not be reached, or refused an order of the command line
"""

from __future__ import annotations

from collections.abc import Sequence

EX_CONFIG = 78  # sysexits.h; the unit file's RestartPreventExitStatus


class FlyballError(Exception):
    """Base of the tree. `str(error)` is one message for people: what, where, what to do."""

    http_status = 500


class ProblemsError(FlyballError):
    """Several problems found in one go, one line each, every line with its place."""

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        super().__init__("\n".join([summary, *(f"  - {p}" for p in self.problems)]))


class ConfigError(ProblemsError):
    pass


class LadderError(ProblemsError):
    http_status = 400


class WorkerError(FlyballError):
    http_status = 500


class OpenError(WorkerError):
    pass


class CanaryError(WorkerError):
    pass


class RequestError(FlyballError):
    http_status = 400


class NotFoundError(RequestError):
    http_status = 404


class TooLargeError(RequestError):
    http_status = 413


class UnsupportedEncodingError(RequestError):
    http_status = 415


class ForbiddenError(RequestError):
    http_status = 403


class UnavailableError(FlyballError):
    http_status = 503


class QueueFullError(UnavailableError):
    http_status = 429


class DeadlineError(FlyballError):
    http_status = 504


class ControlError(FlyballError):
    pass


class UplinkError(FlyballError):
    pass


class MessageError(UplinkError):
    http_status = 400


class LinkError(UplinkError):
    """`code` is the MQTT 5 reason code of a refusal or a DISCONNECT, None when the broker gave none."""

    def __init__(self, message: str, code: int | None = None) -> None:
        self.code = code
        super().__init__(message)


class CredentialError(LinkError):
    pass


class StateError(UplinkError):
    http_status = 503
