"""The daemon's life: start, bad starts, reload, faults, end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from real_daemon import Daemon, answers, environment, flyball

from flyball.client import Client
from flyball.errors import ControlError, FlyballError
from flyball.measure.accuracy import encoded_image

Start = Callable[..., Daemon]


def get(url: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, json.loads(reply.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def test_a_users_own_model_in_three_commands(shared_data: Path, tmp_path: Path) -> None:
    models = shared_data / "models/imagenet"
    env = environment(XDG_STATE_HOME=str(tmp_path / "s"), XDG_RUNTIME_DIR=str(tmp_path / "r"),
                      FLYBALL_CONFIG=str(tmp_path / "flyball.toml"))  # fmt: skip
    socket_path = tmp_path / "flyball.sock"
    (tmp_path / "flyball.toml").write_text(
        f'[paths]\nstate = "{tmp_path}/s"\nsocket = "{socket_path}"\n[serving]\nhttp = ""\nmetrics = ""\n'
    )
    model = models / "mobilenet_v1_0.25_224_quant.tflite"
    # 1
    flyball("ladder", "new", model, "--labels", models / "imagenet_labels.txt", "--name", "mine", cwd=tmp_path, env=env)
    # 2
    daemon = subprocess.Popen([sys.executable, "-m", "flyball", "run", "--ladder", "mine"], cwd=tmp_path, env=env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        end_s = time.monotonic() + 20
        while not socket_path.exists():
            assert time.monotonic() < end_s
            time.sleep(0.05)
        # 3
        done = flyball("infer", "mine", shared_data / "images/parrot.jpg", "--json", cwd=tmp_path, env=env)
        assert answers(done)[0]["outputs"]["labels"][0] == "macaw"
    finally:
        daemon.terminate()
        assert daemon.wait(20) == 0


def test_health_and_an_end_without_loss(daemon: Start, imagenet: Path) -> None:
    one = daemon(ladders=(imagenet,)).until_ready()
    assert get(f"{one.url}/v2/health/live")[0] == 200
    assert get(f"{one.url}/v2/health/ready")[0] == 200
    workers = one.workers()
    assert len(workers) == 2, "the strongest rung's, and that of the one that answered first, now on standby"
    assert one.stop() == 0
    assert not one.socket.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_nothing_survives_a_kill(daemon: Start, imagenet: Path) -> None:
    one = daemon(ladders=(imagenet,)).until_ready()
    workers = one.workers()
    one.process.kill()
    one.process.wait()
    end_s = time.monotonic() + 3
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    again = Daemon(one.home, ladders=(imagenet,))
    try:
        again.until_ready()  # the stale socket does not keep the next one from starting
        assert again.stop() == 0
    finally:
        again.process.kill()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_port_in_use_is_a_configuration_error(daemon: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one = daemon()
        one.process.kill()
        one.process.wait()
        config = one.config.read_text().replace(str(one.port), str(port))
        one.config.write_text(config)
        done = flyball("run", "--config", one.config, check=False)
    assert done.returncode == 78
    text = done.stdout + done.stderr
    assert str(port) in text
    assert "in use" in text
    assert "Traceback" not in text


def test_a_second_daemon_on_the_same_socket_is_refused(daemon: Start) -> None:
    one = daemon().until_ready()
    other = one.home / "other.toml"
    other.write_text(f'[paths]\nstate = "{one.home}/s2"\nsocket = "{one.socket}"\n[serving]\nhttp = ""\nmetrics = ""\n')
    done = flyball("run", "--config", other, check=False)
    assert done.returncode == 78
    assert str(one.socket) in done.stdout + done.stderr
    assert one.client.status().version


def test_mistakes_in_the_configuration_are_all_told(tmp_path: Path) -> None:
    file = tmp_path / "flyball.toml"
    file.write_text('[serving]\nhttp = "nowhere"\n[governer]\n[engine]\nslots = -1\n')
    for command in (("run", "--config", file), ("config", "check", file)):
        done = flyball(*command, check=False)
        assert done.returncode == 78
        text = done.stdout + done.stderr
        for key in ("serving.http", "governer", "did you mean 'governor'", "engine.slots"):
            assert key in text
        assert "Traceback" not in text


def test_a_reload_loses_no_request(daemon: Start, imagenet: Path, tmp_path: Path, shared_data: Path) -> None:
    one = daemon(ladders=(imagenet,)).until_ready()
    picture = encoded_image((shared_data / "images/cat.bmp").read_bytes())
    stop, count, errors = threading.Event(), [0], []

    def ask() -> None:
        client = Client(one.socket)
        while not stop.is_set():
            try:
                client.infer("imagenet", (picture,))
                count[0] += 1
            except FlyballError as error:
                errors.append(str(error))
        client.close()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        second = tmp_path / "second"
        shutil.copytree(imagenet, second)
        manifest = second / "flyball-ladder.toml"
        manifest.write_text(manifest.read_text().replace('name = "imagenet"', 'name = "second"'))
        flyball("ladder", "add", second, "--config", one.config)
        assert {v.status.name for v in one.client.status().ladders} == {"imagenet", "second"}
        (one.home / "conf.d").mkdir()
        (one.home / "conf.d/a.toml").write_text("[governor.limits]\nlatency_p95_ms = 5000\n")
        one.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        (one.home / "conf.d/a.toml").write_text("[governor.limits]\nlatency_p95_ms = -5\n")
        done = flyball("reload", "--socket", one.socket, check=False)
        assert done.returncode == 78
        assert "latency_p95_ms" in done.stderr
        (one.home / "conf.d/a.toml").unlink()
        flyball("reload", "--socket", one.socket)
        flyball("ladder", "rm", "second", "--config", one.config)
        assert {v.status.name for v in one.client.status().ladders} == {"imagenet"}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert count[0] > 10
    assert one.stop() == 0


def test_one_broken_ladder_does_not_stop_the_others(daemon: Start, imagenet: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(imagenet, broken)
    manifest = broken / "flyball-ladder.toml"
    manifest.write_text(manifest.read_text().replace('name = "imagenet"', 'name = "broken"'))
    for file in broken.glob("*.tflite"):
        os.truncate(file, 1000)
    one = daemon(ladders=(imagenet, broken)).until_ready()
    states = {v.status.name: v.status for v in one.client.status().ladders}
    assert states["imagenet"].state == "ready"
    assert states["broken"].state == "failed"
    assert "expected sha256" in states["broken"].error
    status, body = get(f"{one.url}/v2/health/ready")
    assert status != 200 or not body.get("ready", True)
    request = urllib.request.Request(f"{one.url}/v2/models/broken/infer", data=b'{"inputs": []}', method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code in (400, 503)
    assert one.stop() == 0


def test_a_killed_worker_comes_back(daemon: Start, imagenet: Path, shared_data: Path) -> None:
    one = daemon(ladders=(imagenet,)).until_ready()
    workers = one.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSEGV)
    done = answers(flyball("infer", "imagenet", shared_data / "images/cat.bmp", "--socket", one.socket, "--json"))
    assert done[0]["outputs"]["labels"]
    one.until(lambda: one.client.status().ladders[0].status.state == "ready", "recovered")
    assert one.client.status().ladders[0].totals.worker_restarts == {"signal": len(workers)}


def test_the_command_line_without_a_daemon(tmp_path: Path) -> None:
    done = flyball("status", "--socket", tmp_path / "none.sock", check=False)
    assert done.returncode == 1
    assert "not running" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(ControlError):
        Client(tmp_path / "none.sock").status()


@pytest.mark.parametrize("name", ["model_invoking_error.tflite", "person_detect_vela.tflite"])
def test_models_that_must_be_refused(shared_data: Path, tmp_path: Path, name: str) -> None:
    done = flyball("ladder", "new", shared_data / "models/bad" / name, "--out", tmp_path / "x", check=False)
    text = done.stdout + done.stderr
    if done.returncode == 0:  # it opens, but it does not run
        done = flyball("ladder", "check", tmp_path / "x", check=False)
        text = done.stdout + done.stderr
    assert done.returncode == 78
    assert name in text or "rungs cannot run here" in text
    assert "Traceback" not in text


def test_the_version_is_printed() -> None:
    assert flyball("--version").stdout.startswith("flyball ")
