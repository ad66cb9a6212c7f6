"""The whole daemon, without a ladder, with one command more: `mark`, whose effects can be counted.

    whole_daemon.py PORT STATE_DIR MARKS ["" PERIOD_S BATCH [ALLOWED,... [UPLINK [COLLECT_S]]]]

The arguments of killing_device.py. Its configuration stands beside STATE_DIR; the commands that it takes are mark, ping
and the ALLOWED, and UPLINK are more lines of [uplink].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from marking_device import mark

from flyball import config, daemon
from flyball.uplink.commands import Handler
from flyball.uplink.link import Timing
from flyball.uplink.uplink import Uplink

TRIAL_S = 1


def main(
    port: str,
    state_dir: str,
    marks: str,
    _: str = "",
    period_s: str = "1",
    batch: str = "60",
    allowed: str = "",
    uplink: str = "",
    collect_s: str = "10",
) -> int:
    class Marking(Uplink):
        def __init__(self, settings: config.Uplink, *, handlers: Sequence[Handler[Any]], **more: Any) -> None:
            # The configuration itself knows only the commands that there are.
            allow: Any = (*settings.commands.allow, "mark")
            commands = msgspec.structs.replace(settings.commands, allow=allow)
            settings = msgspec.structs.replace(settings, commands=commands)
            timing = Timing(collect_s=float(collect_s))
            super().__init__(settings, handlers=(*handlers, mark(Path(marks))), timing=timing, **more)

    daemon.Uplink = Marking  # type: ignore[misc]  # a daemon has no other place where commands are added
    place = Path(state_dir).parent
    commands = ["ping", *filter(None, allowed.split(","))]
    file = place / "daemon.toml"
    file.write_text(
        f'[paths]\nstate = "{state_dir}"\nsocket = "{place}/socket"\n[serving]\nhttp = ""\nmetrics = ""\n'
        f'[uplink]\nenabled = true\nbroker = "mqtt://127.0.0.1:{port}"\ntenant = "acme"\ndevice = "edge-1"\n'
        f"telemetry_period_s = {period_s}\nbatch_records = {batch}\n{uplink}\n"
        f"[uplink.commands]\nallow = {json.dumps(commands)}\ntrial_s = {TRIAL_S}\n"
    )
    return daemon.main(["--config", str(file)])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
