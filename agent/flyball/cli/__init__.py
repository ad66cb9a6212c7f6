"""The command line. Each module holds the commands of one subject; app.py puts them together.

arguments -> run -> exit code; whatever the machine refuses on the way (a full disk, no memory, Ctrl-C) ends here in one
line. FlyballErrors end in app.py, which knows their exit codes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TextIO

INTERRUPTED = 130  # what shells give for SIGINT
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)  # files name themselves, streams do not


def main() -> int:
    """Entry point of `flyball`."""
    try:
        _open_streams()
        code = _answer(sys.argv[1:])
        sys.stdout.flush()  # here, where a full disk can still be told; at exit Python could only complain
        return code
    except KeyboardInterrupt:
        return _end(INTERRUPTED, "interrupted")
    except BrokenPipeError:
        return _end(1)  # the reader of our output has gone: `flyball ls | head`
    except OSError as error:
        return _end(1, f"error: {_of(error)}")
    except UnicodeError as error:
        return _end(1, f"error: text that is not as it should be encoded: {error}")
    except MemoryError:
        return _end(1, "error: not enough memory")


def _answer(arguments: list[str]) -> int:
    """The version is answered before anything else is imported: it is asked for by scripts, and the command line's
    libraries take longer to load than it does to print."""
    if arguments == ["--version"]:
        from flyball import __version__

        print(f"flyball {__version__}")
        return 0
    from flyball.cli.app import run

    return run(arguments)


def _open_streams() -> None:
    """Streams that are closed (`>&-`) or of a poor encoding (`LC_ALL=C`) are made such that printing works or fails in
    a way that can be told."""
    if sys.stdout is None:
        # Read-only on purpose: whoever writes gets EBADF, and no file that is opened later becomes "standard output".
        os.dup2(os.open(os.devnull, os.O_RDONLY), 1)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=errors)


def _of(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {what}"
    return f"standard output cannot be written: {what}" if error.errno in _WRITING else what


def _end(code: int, line: str = "") -> int:
    try:
        if line:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)
    _drop(sys.stdout)
    return code


def _drop(stream: TextIO) -> None:
    """What is left in its buffer goes nowhere, instead of failing once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
