"""`flyball ladder` with real models: all of a ladder is written, or nothing; every mistake is told at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_daemon import flyball

from flyball.ladder.manifest import load

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/defects/ladder"
MODELS = sorted(EXAMPLE.glob("*r56-fp32*.onnx")) + sorted(EXAMPLE.glob("*r64-fp32*.onnx"))
LABELS = EXAMPLE / load(EXAMPLE).manifest.ladder.labels


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("labels", "more", "expected"),
    [
        (b"ok\xff\n", (), "labels.txt: not UTF-8 text (byte 2)"),
        (b"", (), "labels.txt: the file is empty"),
        (b"a\n", ("--name", "a/b"), "--name: expected 1 to 64 letters, digits, '.', '_' or '-', found 'a/b'"),
        (b"a\n", ("--eval", "nowhere"), "nowhere: expected folders named after labels"),
        (b"a\n", (), "6 scores"),
    ],
)
def test_nothing_is_left_of_a_ladder_that_cannot_be(
    tmp_path: Path, labels: bytes, more: tuple[str, ...], expected: str
) -> None:
    (tmp_path / "labels.txt").write_bytes(labels)
    done = flyball("ladder", "new", *MODELS, "--labels", "labels.txt", *more, cwd=tmp_path)
    assert done.returncode == 78
    assert expected in said(done)
    assert "ladder.name" not in done.stderr, "a key that the user never wrote"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.txt"]


def test_two_models_that_would_be_one_rung(tmp_path: Path) -> None:
    for name in ("net.onnx", "net.tflite"):
        shutil.copyfile(MODELS[0], tmp_path / name)
    done = flyball("ladder", "new", "net.onnx", "net.tflite", cwd=tmp_path)
    assert done.returncode == 78
    assert "two models would be the rung 'net'" in said(done)


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    done = flyball("ladder", "new", MODELS[0], "--out", "/proc/xx")
    assert done.returncode == 78
    assert "/proc/xx: cannot be written" in said(done)
    (tmp_path / "file").write_text("")
    done = flyball("ladder", "new", MODELS[0], "--out", tmp_path / "file/x")
    assert done.returncode == 78
    assert f"{tmp_path}/file/x: cannot be written" in said(done)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A limit on the size of files stands for it; the second time there is room."""
    folder = tmp_path / "mine"
    folder.mkdir()
    script = f'ulimit -f 64; exec "{sys.executable}" -m flyball ladder new "$0" --out "$1"'
    command = ["bash", "-c", script, str(MODELS[0]), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert f"{folder}: cannot be written: File too large" in said(done)
    assert list(folder.iterdir()) == [], "nothing that would keep a second attempt from being made"
    assert flyball("ladder", "new", MODELS[0], "--out", folder).returncode == 0
    assert sorted(p.name for p in folder.iterdir()) == ["flyball-ladder.toml", MODELS[0].name]


def test_paths_are_printed_as_they_can_be_pasted(tmp_path: Path) -> None:
    done = flyball("ladder", "new", MODELS[0], "--out", "[x] y", cwd=tmp_path, environment={"COLUMNS": "30"})
    assert done.returncode == 0, done.stderr
    assert "flyball ladder check '[x] y'\n" in done.stdout
    assert "written: [x] y/flyball-ladder.toml\n" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["[x] y"]
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o755, "not mkdtemp's 0700"


def test_accuracy_is_measured_and_sorts_the_rungs(tmp_path: Path) -> None:
    """Pictures that the generator labels; the order given is the wrong one."""
    from PIL import Image

    from flyball.demo.surface import CLASSES, DEMO_SEEDS, draw

    for seed in DEMO_SEEDS[:60]:
        picture, label = draw(seed)
        folder = tmp_path / "eval" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{seed}.png")
    strong, weak = sorted(EXAMPLE.glob("*r112-fp32*.onnx"))[0], MODELS[0]
    done = flyball(
        "ladder", "new", weak, strong, "--labels", LABELS, "--normalize", "imagenet", "--eval", tmp_path / "eval",
        "--out", tmp_path / "mine", "--name", "mine",
    )  # fmt: skip
    assert done.returncode == 0, said(done)
    manifest = load(tmp_path / "mine").manifest
    shares = [r.accuracy for r in manifest.rung]
    assert None not in shares
    assert shares == sorted(shares, key=lambda share: -(share or 0))
    assert manifest.ladder.accuracy_source == "measured on the pictures in eval"
    assert "%" in done.stdout


def test_check_tells_every_mistake_at_once(tmp_path: Path) -> None:
    """In the manifest, in a backend's name, in a backend's options."""
    folder = tmp_path / "mine"
    assert flyball("ladder", "new", *MODELS, "--labels", LABELS, "--out", folder).returncode == 0
    file = folder / "flyball-ladder.toml"
    first, second = file.read_text().split("[[rung]]")[1:]
    head = file.read_text().split("[[rung]]")[0]
    first = first.replace('"onnx"', '"onix"')
    second += "[rung.options]\nthraeds = 2\n"
    file.write_text("[[rung]]".join([head, first, second]))
    done = flyball("ladder", "check", folder)
    assert done.returncode == 78
    assert "no backend is called 'onix'; did you mean 'onnx'?" in said(done)
    assert "thraeds" in done.stderr
    file.write_text("[[rung]]".join([head.replace("schema = 1", 'schema = 1\ncolour = "red"'), first, second]))
    done = flyball("ladder", "check", folder)
    assert done.returncode == 78
    for mistake in ("colour: unknown key", "'onix'", "thraeds"):
        assert mistake in said(done)


def test_check_opens_the_rungs_whose_files_are_whole(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert flyball("ladder", "new", *MODELS, "--labels", LABELS, "--out", folder).returncode == 0
    with (folder / MODELS[0].name).open("ab") as artifact:
        artifact.write(b"!")
    done = flyball("ladder", "check", folder)
    assert done.returncode == 78
    assert "expected sha256" in said(done)
    assert "1 of 2 rungs cannot run here" in done.stderr
    assert "ok" in done.stdout


def test_a_damaged_ladder_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "flyball.toml").write_text(f'[paths]\nstate = "{tmp_path}/state"\nsocket = "{tmp_path}/s.sock"\n')
    config = ("--config", tmp_path / "flyball.toml")
    for name in ("first", "second", "third"):
        assert flyball("ladder", "new", MODELS[0], "--name", name, "--out", tmp_path / name).returncode == 0
        assert flyball("ladder", "add", tmp_path / name, *config).returncode == 0
    ladders = tmp_path / "state/ladders"
    (ladders / "first/versions/1/flyball-ladder.toml").write_text("schema = ")
    (ladders / "third/current").unlink()
    done = flyball("ladder", "ls", *config, environment={"COLUMNS": "40"})
    assert done.returncode == 78
    assert "2 of 3 installed ladders are damaged" in said(done)
    assert str(ladders / "second/versions/1") + "\n" in done.stdout.replace(" \n", "\n"), "a path is never folded"
    assert "not valid TOML" in done.stderr
    listed = {entry["name"]: entry for entry in json.loads(flyball("ladder", "ls", "--json", *config).stdout)}
    assert "error" in listed["first"]
    assert "error" in listed["third"]
    assert listed["second"]["path"] == str(ladders / "second/versions/1")
