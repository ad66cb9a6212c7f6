import pytest
from pathlib import Path
from conftest import Mosquitto
from device_side import linked
from fleet_side import Fleet
pytestmark = [pytest.mark.anyio]
async def test_smoke(mosquitto, tmp_path):
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, telemetry_period_s=0.1, batch_records=5) as up:
            await fleet.waits("status", lambda d: d["state"]=="ready")
            fleet.order("ping","p1",{"echo":"hi"})
            print(await fleet.waits("cmd/ping/p1/st", lambda d: d["state"]=="successful"))
            await fleet.waits("t/main", lambda d: d["first_seq"]==5)
        await fleet.waits("status", lambda d: d["state"]=="disconnected")
    for h in fleet.heard: print(h)
    print(mosquitto.log_text())
