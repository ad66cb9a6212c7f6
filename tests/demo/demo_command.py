"""`flyball demo` as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def demo(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flyball", "demo", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
