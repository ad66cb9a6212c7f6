import sys

import pytest

from flyball_backends.contract import BackendError
from flyball_backends.onnx import OnnxBackend
from flyball_backends.registry import find, names

CODE = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Options: pass
class Good:
    name, Options, api_version = "good", Options, 1
    def probe(self): return []
    def open(self, artifact, options): raise NotImplementedError
class Old(Good): api_version = 0
class Half:
    name = "half"
class Sick(Good):
    def __init__(self): raise OSError("no firmware")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts packages with entry points where the import system finds them."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "registry_plugin.py").write_text(CODE)
    (tmp_path / "registry_broken.py").write_text("import a_vendor_library_that_is_not_here")

    def add(distribution, **backends):
        folder = tmp_path / f"{distribution}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        lines = [f"{name} = {value}" for name, value in backends.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[flyball.backends]", *lines]))

    yield add
    sys.modules.pop("registry_plugin", None)


def test_our_own_are_registered():
    assert {"onnx", "litert", "edgetpu"} <= set(names())
    assert isinstance(find("onnx"), OnnxBackend)


def test_an_unknown_name_gets_the_nearest_or_all():
    with pytest.raises(BackendError, match=r"no backend is called 'onxn'; did you mean 'onnx'\?"):
        find("onxn")
    with pytest.raises(BackendError, match=r"'tensorrt'; installed backends: .*edgetpu, .*litert, onnx.*install"):
        find("tensorrt")


def test_a_plug_in_is_found(install):
    install("one", good="registry_plugin:Good")
    assert "good" in names()
    assert find("good").name == "good"


def test_a_broken_plug_in_hides_no_other(install):
    install("one", good="registry_plugin:Good", broken="registry_broken:Thing", sick="registry_plugin:Sick",
            gone="registry_plugin:Nothing")  # fmt: skip
    assert {"good", "broken", "sick", "gone", "onnx"} <= set(names())
    assert find("good").probe() == []
    with pytest.raises(BackendError, match=r"'broken' \(registry_broken:Thing\).*ModuleNotFoundError.*reinstall"):
        find("broken")
    with pytest.raises(BackendError, match="OSError: no firmware"):
        find("sick")
    with pytest.raises(BackendError, match="AttributeError"):
        find("gone")


def test_something_that_is_no_backend(install):
    install("one", half="registry_plugin:Half", old="registry_plugin:Old")
    with pytest.raises(BackendError, match="is none: it has no Options, probe, open"):
        find("half")
    with pytest.raises(BackendError, match="version 0 of the contract, this Flyball has 1"):
        find("old")


def test_two_plug_ins_of_one_name(install):
    install("one", good="registry_plugin:Good")
    install("two", good="registry_plugin:Old")
    assert names().count("good") == 1
    with pytest.raises(BackendError, match=r"registered twice: registry_plugin:Good and registry_plugin:Old"):
        find("good")


def test_the_same_plug_in_seen_twice_is_one(install):
    install("one", good="registry_plugin:Good")
    install("two", good="registry_plugin:Good")
    assert find("good").name == "good"
