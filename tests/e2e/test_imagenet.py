"""The MobileNets of the shared data: the right answers, and the same bits by every way in."""

import base64
import json
import struct
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from real_daemon import Daemon, answers, flyball

RIGHT = {
    "cat.bmp": ("Egyptian cat", "tabby"),
    "parrot.jpg": ("macaw",),
    "hot_dog.jpg": ("hotdog",),
    "grace_hopper.bmp": ("military uniform",),
}


@pytest.fixture(scope="module")
def served(imagenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    one = Daemon(tmp_path_factory.mktemp("imagenet"), ladders=(imagenet,))
    one.until_ready()
    yield one
    assert one.stop() == 0, one.log


def rungs(served: Daemon) -> list[str]:
    return [r.name for r in served.client.status().ladders[0].status.rungs]


def test_the_top_rung_knows_the_pictures(served: Daemon, shared_data: Path) -> None:
    files = [shared_data / "images" / name for name in RIGHT]
    done = answers(flyball("infer", "imagenet", *files, "--socket", served.socket, "--json"))
    for answer, (name, expected) in zip(done, RIGHT.items(), strict=True):
        best = answer["outputs"]["labels"][0]
        assert any(best.startswith(e) for e in expected), f"{name}: {answer['outputs']}"
        assert answer["rung"] == "mobilenet_v2_1.0_224_quant"


def test_every_rung_gives_the_same_bits_by_every_way(served: Daemon, shared_data: Path) -> None:
    file = shared_data / "images/parrot.jpg"
    client = triton.InferenceServerClient(f"127.0.0.1:{served.port}")
    seen = []
    for rung in rungs(served):
        flyball("switch", "imagenet", rung, "--socket", served.socket)
        (by_command,) = answers(flyball("infer", "imagenet", file, "--socket", served.socket, "--json"))
        assert by_command["rung"] == rung
        expected = np.array(by_command["outputs"]["scores"], np.float32)
        body = {
            "inputs": [
                {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"content_type": "base64"},
                 "data": [base64.b64encode(file.read_bytes()).decode()]}
            ]
        }  # fmt: skip
        curl = subprocess.run(
            ["curl", "-sS", "-H", "Content-Type: application/json", "--data-binary", "@-",
             f"{served.url}/v2/models/imagenet/infer"],
            input=json.dumps(body).encode(), capture_output=True, check=True, timeout=30,
        )  # fmt: skip
        outputs = {o["name"]: o["data"] for o in json.loads(curl.stdout)["outputs"]}
        by_curl = np.array(outputs["scores"], np.float32)
        given = triton.InferInput("image", [1], "BYTES")
        given.set_data_from_numpy(np.array([file.read_bytes()], dtype=object), binary_data=True)
        taken = client.infer("imagenet", [given])
        by_triton = taken.as_numpy("scores")
        pixels = np.asarray(Image.open(file).convert("RGB"))
        raw = triton.InferInput("image", list(pixels.shape), "UINT8")
        raw.set_data_from_numpy(pixels, binary_data=True)
        by_pixels = client.infer("imagenet", [raw]).as_numpy("scores")
        for scores in (by_curl, by_triton, by_pixels):
            assert scores.tobytes() == expected.tobytes(), rung
        assert outputs["labels"] == by_command["outputs"]["labels"]
        assert [x.decode() for x in taken.as_numpy("labels")] == outputs["labels"]
        seen.append(expected.tobytes())
    assert len(set(seen)) == len(seen), "the rungs are different models"
    flyball("switch", "imagenet", "auto", "--socket", served.socket)


def test_the_metadata_is_the_same_for_every_rung(served: Daemon) -> None:
    found = set()
    for rung in rungs(served):
        flyball("switch", "imagenet", rung, "--socket", served.socket)
        with urllib.request.urlopen(f"{served.url}/v2/models/imagenet", timeout=10) as reply:
            found.add(reply.read())
    assert len(found) == 1
    metadata = json.loads(found.pop())
    assert [(t["name"], t["datatype"], t["shape"]) for t in metadata["inputs"]] == [("image", "UINT8", [-1, -1, 3])]
    assert [(t["name"], t["datatype"], t["shape"]) for t in metadata["outputs"]] == [
        ("scores", "FP32", [5]),
        ("labels", "BYTES", [5]),
    ]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: b"not an image", "no readable image"),
        (lambda: b"", "no readable image"),
        (lambda: huge_png(), "pixels; this ladder takes at most"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "no readable image"),
    ],
)
def test_pictures_that_are_none(served: Daemon, make: Callable[[], bytes], expected: str) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{served.port}")
    given = triton.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([make()], dtype=object), binary_data=True)
    with pytest.raises(triton.InferenceServerException, match=expected) as caught:
        client.infer("imagenet", [given])
    assert caught.value.status() == "400"
    assert served.client.status().ladders[0].totals.worker_restarts == {}


def huge_png() -> bytes:
    """A PNG of 25,000 x 20,000 pixels that is 70 bytes long: header first, pixels never."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 25_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
