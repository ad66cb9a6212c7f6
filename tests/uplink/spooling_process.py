"""Writes into a spool until it is killed, and says after every commit up to which number it has sealed."""

import sys
from pathlib import Path

from flyball.uplink.spool import SpoolFile
from flyball.uplink.spooled import TELEMETRY, Rows, Start, Work

file = SpoolFile(Path(sys.argv[1]), batch_records=5)
file.begin("epoch", {"main": Start(klass=TELEMETRY)})
file.grant({"main": 1 << 40})
at = 0
while True:
    rows = [{"at": float(at + i)} for i in range(3)]
    at += 3
    for sealed in file.commit(Work(rows={"main": [Rows(boot="boot", clk="synced", rows=rows)]})):
        print(sealed.first, sealed.last, flush=True)
