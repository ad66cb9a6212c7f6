"""The protocol over real sockets, with the clients that people use."""

from __future__ import annotations

import itertools
import json
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import msgspec
import numpy as np
import pytest
from served import LIMIT, Served, World, infer_body
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from flyball import __version__
from flyball.errors import DeadlineError, QueueFullError, UnavailableError, WorkerError
from flyball.ports import Interface, PublicTensor, Tensor
from flyball.serving.rate import RateLimit
from flyball.testing import NO_TOTALS, FakeLadder

ECHO = "/v2/models/echo/infer"
X = {"name": "x", "datatype": "FP32", "shape": [2], "data": [0.1, -2]}


# -------------------------------------------------------------------------------------------------------------- reads


def test_server_metadata_and_health(served: Served) -> None:
    server = served.json("GET", "/v2")
    assert (server["name"], server["version"]) == ("flyball", __version__)
    assert "binary_tensor_data" in server["extensions"]
    assert served.json("GET", "/v2/health/live") == {"live": True}
    assert served.json("GET", "/v2/health/ready") == {"live": True, "ready": True}


def test_ready_means_that_every_ladder_has_a_rung_that_answers(world: World, served: Served) -> None:
    world.ladders[1].active = None
    assert served.json("GET", "/v2/health/ready", status=503) == {"live": True, "ready": False}
    assert served.json("GET", "/v2/models/echo/ready", status=503) == {"name": "echo", "ready": False}
    assert served.json("GET", "/v2/models/image/ready") == {"name": "image", "ready": True}


def test_model_metadata(served: Served) -> None:
    expected = {
        "name": "image",
        "versions": ["3"],
        "platform": "flyball",
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": [-1, -1, 3],
                "alternative": {"datatype": "BYTES", "shape": [1]},
            }
        ],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [2]},
            {"name": "labels", "datatype": "BYTES", "shape": [2]},
        ],
    }
    assert served.json("GET", "/v2/models/image") == expected
    assert served.json("GET", "/v2/models/image/versions/3") == expected


def test_repository_index(world: World, served: Served) -> None:
    world.ladders[1].active = None
    both = served.json("POST", "/v2/repository/index")
    assert [(m["name"], m["version"], m["state"]) for m in both] == [
        ("image", "3", "READY"),
        ("echo", "1", "UNAVAILABLE"),
    ]
    assert [m["name"] for m in served.json("POST", "/v2/repository/index", {"ready": True})] == ["image"]
    assert "ready" in served.error(400, "POST", "/v2/repository/index", '{"ready": 3}')
    assert served.error(404, "POST", "/v2/repository/models/echo/load")


def test_statistics_in_ns(world: World, served: Served) -> None:
    world.ladders[1].counted = msgspec.structs.replace(
        NO_TOTALS, success=3, failure={"BACKEND": 2, "OTHER": 1}, executions=4,
        request_ns=100, queue_ns=10, pre_ns=20, run_ns=60, post_ns=5,
    )  # fmt: skip
    (stats,) = served.json("GET", "/v2/models/echo/stats")["model_stats"]
    assert (stats["name"], stats["version"]) == ("echo", "1")
    assert (stats["inference_count"], stats["execution_count"]) == (3, 4)
    assert stats["inference_stats"] == {
        "success": {"count": 3, "ns": 100},
        "fail": {"count": 3},
        "queue": {"count": 3, "ns": 10},
        "compute_input": {"count": 3, "ns": 20},
        "compute_infer": {"count": 3, "ns": 60},
        "compute_output": {"count": 3, "ns": 5},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    assert len(served.json("GET", "/v2/models/stats")["model_stats"]) == 2


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        (404, "GET", "/"),
        (404, "GET", "/v2/"),
        (404, "GET", "/v2/models/none"),
        (404, "GET", "/v2/models/image/versions/4"),
        (404, "GET", "/v2/models/image%2f..%2fecho"),
        (404, "POST", "/v2/models/none/infer"),
        (404, "POST", "/v2/models/image/versions/4/infer"),
        (404, "POST", "/v2/models/a/b/infer"),
        (404, "GET", "/control/status"),
        (404, "POST", "/control/reload"),
        (405, "POST", "/v2"),
        (405, "GET", ECHO),
        (405, "DELETE", "/v2/models/echo"),
    ],
)
def test_unknown_paths_and_wrong_methods(served: Served, status: int, method: str, path: str) -> None:
    assert served.error(status, method, path)


# ---------------------------------------------------------------------------------------------------------- inference


def test_an_inference_in_json(world: World, served: Served) -> None:
    reply = served.json("POST", ECHO, {"id": "q", "inputs": [X], "parameters": {"rung": "small", "timeout": 2_000_000}})
    assert (reply["model_name"], reply["model_version"], reply["id"]) == ("echo", "1", "q")
    assert reply["parameters"]["rung"] == "small"
    assert [np.float32(v) for v in reply["outputs"][0]["data"]] == [np.float32(0.1), np.float32(-2)]
    (asked,) = world.ladders[1].requests
    assert (asked.rung, asked.timeout_s) == ("small", 2.0)


def test_json_and_binary_answers_are_the_same_bits(served: Served) -> None:
    values = np.random.default_rng(5).standard_normal(1000, dtype=np.float32)
    body, headers = infer_body("x", "FP32", values.shape, values.tobytes())
    response, reply = served.ask("POST", ECHO, body, headers)
    tail = reply[int(response.headers["inference-header-content-length"]) :]
    as_json = served.json("POST", ECHO, {"inputs": [{**X, "shape": [1000], "data": values.tolist()}]})
    assert tail == values.tobytes()
    assert np.array(as_json["outputs"][0]["data"], np.float32).tobytes() == values.tobytes()


def test_large_json_is_converted_beside_the_loop_to_the_same_bits(served: Served) -> None:
    values = np.random.default_rng(6).standard_normal(64_000, dtype=np.float32)  # 1.3 MB of JSON each way
    reply = served.json("POST", ECHO, {"inputs": [{**X, "shape": [64_000], "data": values.tolist()}]})
    assert np.array(reply["outputs"][0]["data"], np.float32).tobytes() == values.tobytes()


def test_pinning_can_be_forbidden(serve: Callable[..., Served], world: World) -> None:
    served = serve(allow_pin=False)
    text = served.error(403, "POST", ECHO, json.dumps({"inputs": [X], "parameters": {"rung": "small"}}))
    assert "serving.allow_pin" in text
    assert world.ladders[1].requests == []
    served.json("POST", ECHO, {"inputs": [X]})


def test_a_client_over_its_rate_is_refused_before_its_body_is_read(serve: Callable[..., Served], world: World) -> None:
    world.rate = RateLimit(per_s=0.001, burst=1, clock=world.clock)
    served = serve()
    served.json("POST", ECHO, {"inputs": [X]})
    assert "requests a second from 127.0.0.1" in served.error(429, "POST", ECHO, json.dumps({"inputs": [X]}))
    assert len(world.ladders[1].requests) == 1
    assert world.intake.held_bytes == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (QueueFullError("64 wait"), 429),
        (UnavailableError("no rung"), 503),
        (DeadlineError("too late"), 504),
        (WorkerError("died"), 500),
    ],
)
def test_errors_of_the_engine_have_their_status_and_text(
    world: World, served: Served, error: Exception, status: int
) -> None:
    world.ladders[1].error = error
    assert served.error(status, "POST", ECHO, json.dumps({"inputs": [X]})) == str(error)


def test_a_fault_is_logged_and_not_told(world: World, served: Served, caplog: pytest.LogCaptureFixture) -> None:
    world.ladders[1].error = ZeroDivisionError("secret detail")
    text = served.error(500, "POST", ECHO, json.dumps({"inputs": [X]}))
    assert "secret" not in text
    (record,) = [r for r in caplog.records if r.name.startswith("flyball.serving")]
    assert record.exc_info is not None
    assert ECHO in record.getMessage()
    assert world.intake.held_bytes == 0


def test_compressed_bodies_are_refused_in_words(served: Served) -> None:
    assert "uncompressed" in served.error(415, "POST", ECHO, b"\x1f\x8b", {"Content-Encoding": "gzip"})
    served.ask("POST", ECHO, json.dumps({"inputs": [X]}), {"Content-Encoding": "identity"})


def test_nothing_is_held_after_answers_of_any_kind(world: World, served: Served) -> None:
    served.json("POST", ECHO, {"inputs": [X]})
    served.error(400, "POST", ECHO, b"{")
    served.error(413, "POST", ECHO, b"x" * (9 * LIMIT))
    assert world.intake.held_bytes == 0


def test_requests_on_one_connection_at_the_same_time_as_others(served: Served) -> None:
    body, headers = infer_body("x", "FP32", [30_000], bytes(range(250)) * 480)
    replies: list[bytes] = []

    def ask() -> None:
        replies.extend(served.ask("POST", ECHO, body, headers)[1] for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(replies) == 30
    assert {reply[-120_000:] for reply in replies} == {bytes(range(250)) * 480}


# ------------------------------------------------------------------------------------------------------- tritonclient

ALL = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip


@pytest.fixture
def triton(world: World, served: Served) -> Any:
    client = InferenceServerClient(f"127.0.0.1:{served.port}")
    yield client
    client.close()


def test_tritonclient_looks_around(world: World, triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("image", "3")
    assert not triton.is_model_ready("none")
    assert triton.get_server_metadata()["name"] == "flyball"
    assert triton.get_model_metadata("image")["inputs"][0]["shape"] == [-1, -1, 3]
    config = triton.get_model_config("image")
    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}]
    assert config["output"][1]["data_type"] == "TYPE_STRING"
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert triton.get_inference_statistics("image")["model_stats"][0]["inference_stats"]["success"]["count"] == 0
    assert len(triton.get_model_repository_index()) == 2


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_asks_about_an_encoded_image(world: World, triton: Any, binary: bool) -> None:
    image = InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([b"\xff\xd8 a jpeg"], dtype=np.object_))
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in ("labels", "scores")]
    result = triton.infer("image", [image], outputs=outputs, request_id="r1")
    assert bytes(world.ladders[0].requests[0].inputs[0].data) == b"\t\0\0\0\xff\xd8 a jpeg"
    labels = [x if isinstance(x, str) else x.decode() for x in result.as_numpy("labels")]
    assert labels == ["chat é", "dog"]
    assert result.as_numpy("scores").tobytes() == np.array([0.1, 0.9], np.float32).tobytes()
    assert result.get_response()["id"] == "r1"
    assert result.get_response()["parameters"]["rung"] == "large"


@pytest.mark.parametrize(
    ("datatype", "binary_in", "binary_out"),
    [
        (datatype, *binary)
        for datatype in ALL
        for binary in itertools.product((True, False), repeat=2)
        if datatype != "FP16" or all(binary)  # tritonclient itself refuses FP16 in JSON
    ],
)
def test_tritonclient_with_every_datatype(
    world: World, serve: Callable[..., Served], datatype: str, binary_in: bool, binary_out: bool
) -> None:
    tensor = PublicTensor(name="x", datatype=datatype, shape=(-1, 3))
    world.ladders.append(FakeLadder("typed", "1", Interface(task="tensor", inputs=(tensor,), outputs=(tensor,))))
    kind = np.dtype(ALL[datatype])
    values = np.frombuffer(bytes(range(1, 1 + 6 * kind.itemsize)), kind).reshape(2, 3).copy()
    if datatype == "BOOL":
        values = np.array([[True, False, True], [False, False, True]])
    assert np_to_triton_dtype(values.dtype) == datatype
    client = InferenceServerClient(f"127.0.0.1:{serve().port}")
    given = InferInput("x", list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary_in)
    result = client.infer("typed", [given], outputs=[InferRequestedOutput("x", binary_data=binary_out)])
    client.close()
    assert bytes(world.ladders[-1].requests[0].inputs[0].data) == values.tobytes()
    assert result.as_numpy("x").tobytes() == values.tobytes()
    assert result.as_numpy("x").shape == (2, 3)


def test_tritonclient_reads_our_errors(world: World, triton: Any) -> None:
    wrong = InferInput("x", [1], "INT8")
    wrong.set_data_from_numpy(np.array([1], np.int8))
    with pytest.raises(InferenceServerException, match=r"expected FP32 \[-1\].*found INT8 \[1\]"):
        triton.infer("echo", [wrong])


def test_tritonclient_pins_a_rung_and_sets_a_timeout(world: World, triton: Any) -> None:
    given = InferInput("x", [1], "FP32")
    given.set_data_from_numpy(np.array([1], np.float32))
    triton.infer("echo", [given], timeout=1_500_000, parameters={"rung": "small"})
    (asked,) = world.ladders[1].requests
    assert (asked.rung, asked.timeout_s) == ("small", 1.5)


# --------------------------------------------------------------------------------------------------------------- curl


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_sends_a_picture_as_it_is(world: World, served: Served, tmp_path: Any) -> None:
    picture = tmp_path / "cat.jpg"
    picture.write_bytes(b"\xff\xd8" + bytes(70_000))
    command = ["curl", "-sS", "-H", "Inference-Header-Content-Length: 0", "--data-binary", f"@{picture}",
               f"http://127.0.0.1:{served.port}/v2/models/image/infer"]  # fmt: skip
    reply = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    assert reply.endswith(b"\3\0\0\0dog")
    assert bytes(world.ladders[0].requests[0].inputs[0].data)[4:] == picture.read_bytes()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("option", ["--http1.0", "--http1.1"])
def test_curl_of_every_age(served: Served, option: str) -> None:
    command = ["curl", "-sS", option, "-d", json.dumps({"inputs": [X]}), f"http://127.0.0.1:{served.port}{ECHO}"]
    reply = subprocess.run(command, capture_output=True, timeout=20, check=True).stdout
    assert json.loads(reply)["outputs"][0]["shape"] == [2]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_stops_a_large_upload_at_the_first_word(served: Served, tmp_path: Any) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(20 << 20))
    command = ["curl", "-sS", "-w", "%{size_upload}", "-H", "Expect: 100-continue", "--data-binary", f"@{large}",
               f"http://127.0.0.1:{served.port}{ECHO}"]  # fmt: skip
    reply = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    assert b"larger than the" in reply
    assert int(reply.rpartition(b"}")[2]) < 1 << 20


def test_metrics_have_a_listener_of_their_own(served: Served) -> None:
    for port in (served.port, served.metrics_port):
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            assert page.headers["content-type"].startswith("text/plain")
            assert b"flyball_build_info" in page.read()
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"http://127.0.0.1:{served.metrics_port}/v2", timeout=10)


def test_struct_of_the_answer_is_little_endian(served: Served) -> None:
    body, headers = infer_body("x", "FP32", [1], struct.pack("<f", 1.5))
    assert served.ask("POST", ECHO, body, headers)[1].endswith(struct.pack("<f", 1.5))


def test_outputs_in_binary_that_are_large(world: World, served: Served) -> None:
    data = bytes(range(256)) * 4000
    world.ladders[1].respond = lambda request: (Tensor("x", "FP32", (len(data) // 4,), data),)
    body, headers = infer_body("x", "FP32", [1], bytes(4))
    assert served.ask("POST", ECHO, body, headers)[1].endswith(data)
