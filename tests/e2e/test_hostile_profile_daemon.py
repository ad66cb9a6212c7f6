"""A daemon whose profile was made to hurt: it says why it does not take it, serves, and governs without it."""

from collections.abc import Callable
from pathlib import Path

from real_daemon import Daemon

LADDER = Path(__file__).resolve().parents[2] / "examples/defects/ladder"


def test_a_profile_without_end_is_left_aside(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    profile = tmp_path / "hostile.json"
    profile.write_bytes(b'{"rungs":' + b"[" * 200_000)
    one = daemon(f'[governor]\nperiod_s = 0.1\n[ladder.defects]\nprofile = "{profile}"\n', (LADDER,)).until_ready()
    one.until(lambda: len(one.client.decisions("defects")) >= 3, "it is governed all the same")
    assert one.client.status().ladders[0].status.state == "ready"
    assert one.log.count("the profile of defects is left aside") == 1
    assert str(profile) in one.log
    assert "Traceback" not in one.log
    profile.write_bytes(b" " * (50 << 20))
    one.client.reload()
    one.until(lambda: "larger than 8 MiB" in one.log, "it looks again after a reload")
    seen = one.client.decisions("defects")[-1].t_s
    one.until(lambda: one.client.decisions("defects")[-1].t_s > seen, "and goes on")
    assert one.stop() == 0
    assert "Traceback" not in one.log
