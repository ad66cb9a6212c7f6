"""Manifests: what they mean, and every mistake at once."""

from pathlib import Path

import pytest
from ladders import write_ladder

from flyball.errors import LadderError
from flyball.ladder.manifest import load


def test_the_interface_belongs_to_the_ladder(tmp_path: Path) -> None:
    folder = load(write_ladder(tmp_path / "a"))
    assert (folder.name, folder.version, folder.labels) == ("things", "1", ("cat", "dog", "owl"))
    interface = folder.interface()
    assert [(t.name, t.datatype, t.shape, t.alternative) for t in interface.inputs] == [
        ("image", "UINT8", (-1, -1, 3), ("BYTES", (1,)))
    ]
    assert [(t.name, t.datatype, t.shape) for t in interface.outputs] == [
        ("scores", "FP32", (3,)),
        ("labels", "BYTES", (3,)),
    ]


def test_a_tensor_ladder_declares_its_tensors(tmp_path: Path) -> None:
    root = write_ladder(tmp_path / "a")
    text = (root / "flyball-ladder.toml").read_text()
    head, rung = text.split("[[rung]]", 1)
    head = head.replace('"image-classification"', '"tensor"').replace('labels = "labels.txt"\n', "")
    tensors = '[[input]]\nname = "x"\ndatatype = "FP32"\nshape = [1, -1]\n'
    tensors += tensors.replace("input", "output").replace('"x"', '"y"')
    (root / "flyball-ladder.toml").write_text(head + tensors + "[[rung]]" + rung.split("[[rung.pre]]")[0])
    interface = load(root).interface()
    assert [(t.name, t.datatype, t.shape) for t in (*interface.inputs, *interface.outputs)] == [
        ("x", "FP32", (1, -1)),
        ("y", "FP32", (1, -1)),
    ]


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    root = write_ladder(tmp_path / "a")
    file = root / "flyball-ladder.toml"
    text = file.read_text()
    text = text.replace('name = "things"', 'name = "no spaces"').replace("accuracy = 0.9", "accuracy = 1.5\nbits = 8")
    text = text.replace('step = "layout"', 'step = "layuot"').replace("width = 32", "width = 0")
    text = text.replace('sha256 = "', 'sha256 = "zz')
    file.write_text(text)
    with pytest.raises(LadderError) as caught:
        load(root)
    problems = "\n".join(caught.value.problems)
    for key in ("ladder.name", "rung[0].accuracy", "rung[0].bits", "rung[0].pre[1].step", "rung[0].pre[0].width",
                "rung[0].sha256"):  # fmt: skip
        assert f"{file}: {key}: " in problems
    assert len(caught.value.problems) == 6


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('artifact = "big.onnx"', 'artifact = "../big.onnx"', "expected a file inside the folder"),
        ('artifact = "big.onnx"', 'artifact = "/etc/passwd"', "expected a file inside the folder"),
        ('artifact = "big.onnx"', 'artifact = "gone.onnx"', "no such file"),
        ('labels = "labels.txt"', 'labels = "../labels.txt"', "expected a file in the folder"),
        ('labels = "labels.txt"', 'labels = "gone.txt"', "cannot be read"),
        ('labels = "labels.txt"', "", "ladder.labels: missing"),
        ('labels = "labels.txt"', 'labels = "labels.txt"\ntop_k = 9', "expected at most 3"),
        ('labels = "labels.txt"', 'labels = "labels.txt"\naccuracy_floor = 0.95', "above every rung's accuracy"),
        ("accuracy = 0.9", 'twin = "small"', "expected another rung's name"),
        ('step = "resize"\nwidth = 32\nheight = 32', 'step = "cast"\ndtype = "float32"', "needs a `resize` step"),
        ('task = "image-classification"', 'task = "tensor"', "declares its tensors"),
        ("schema = 1", "schema = 9", "schema"),
        ('backend = "onnx"', "", "rung[0].backend: missing"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    root = write_ladder(tmp_path / "a")
    file = root / "flyball-ladder.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(LadderError) as caught:
        load(root)
    assert expected in str(caught.value)


def test_a_rung_named_twice(tmp_path: Path) -> None:
    root = write_ladder(tmp_path / "a")
    file = root / "flyball-ladder.toml"
    head, rung = file.read_text().split("[[rung]]", 1)
    file.write_text(head + "[[rung]]" + rung + "[[rung]]" + rung)
    with pytest.raises(LadderError, match="'big' stands twice"):
        load(root)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(LadderError, match="not a folder"):
        load(tmp_path / "nowhere")
