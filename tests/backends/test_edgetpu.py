import gc
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flyball_backends.contract import BackendError
from flyball_backends.edgetpu import EdgeTpuBackend, EdgeTpuOptions, delegate_options, scan
from flyball_backends.litert import LiteRtBackend, LiteRtOptions
from flyball_backends.testing import check_backend, noise

BACKEND = EdgeTpuBackend()
SOURCE = Path(__file__).with_name("libedgetpu_standin.c")


@pytest.fixture
def library(tmp_path):
    """Compiles the stand-in for libedgetpu.so.1 with the given macros."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) for the stand-in Edge TPU library")

    def build(**macros):
        target = tmp_path / f"libedgetpu_{'_'.join(macros)}.so.1"
        defines = [f"-D{name}={value}" if value else f"-D{name}" for name, value in macros.items()]
        command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", *defines, str(SOURCE), "-o", str(target)]
        subprocess.run(command, check=True, timeout=60)
        return str(target)

    return build


@pytest.fixture
def working(library, tmp_path):
    """A library whose delegate takes nothing, and the file in which it notes what it is told."""
    log = tmp_path / "log.txt"
    return library(LOG=f'"{log}"'), log


@pytest.fixture
def model(shared_data):
    return shared_data / "models/hello_world/hello_world_int8.tflite"


@pytest.fixture
def big_model(shared_data):
    return shared_data / "models/imagenet/mobilenet_v2_1.0_224_quant.tflite"


@pytest.fixture
def compiled(shared_data):
    return shared_data / "models/imagenet/mobilenet_v2_1.0_224_quant_edgetpu.tflite"


class TestWithADelegate:
    def test_a_model_runs_through_it(self, working, big_model):
        library, log = working
        session = BACKEND.open(big_model, EdgeTpuOptions(library=library, threads=2))
        cpu = LiteRtBackend().open(big_model, LiteRtOptions(threads=2))
        inputs = noise(session.signature)
        expected = cpu.run(inputs)
        for name, array in session.run(inputs).items():
            np.testing.assert_array_equal(array, expected[name])
        assert session.signature == cpu.signature
        assert log.read_text() == "created\n"
        session.close()
        gc.collect()
        assert log.read_text() == "created\ndestroyed\n"

    def test_conformance(self, working, model):
        check_backend(BACKEND, model, EdgeTpuOptions(library=working[0]))

    def test_a_session_keeps_its_delegate(self, working, model):
        session = BACKEND.open(model, EdgeTpuOptions(library=working[0]))
        gc.collect()
        assert "destroyed" not in working[1].read_text()
        session.run(noise(session.signature))

    def test_options_reach_the_library(self, working, model):
        library, log = working
        BACKEND.open(model, EdgeTpuOptions(device="usb:1", performance="Low", library=library)).close()
        assert set(log.read_text().splitlines()) >= {"device=usb:1", "Performance=Low"}

    def test_a_model_that_is_not_compiled_for_it_is_worth_a_warning(self, working, model, caplog):
        BACKEND.open(model, EdgeTpuOptions(library=working[0])).close()
        assert "not compiled for the Edge TPU" in caplog.text

    def test_a_damaged_model_frees_the_device(self, working, tmp_path):
        library, log = working
        (tmp_path / "bad.tflite").write_bytes(b"nothing of the kind")
        with pytest.raises(BackendError, match="not a LiteRT model"):
            BACKEND.open(tmp_path / "bad.tflite", EdgeTpuOptions(library=library))
        gc.collect()
        assert log.read_text() == "created\ndestroyed\n"


class TestFailures:
    def test_no_device(self, library, compiled):
        with pytest.raises(BackendError, match="no Edge TPU 'usb' could be opened") as caught:
            BACKEND.open(compiled, EdgeTpuOptions(library=library(NO_DEVICE=""), device="usb"))
        assert "lsusb" in str(caught.value)
        assert "plugdev" in str(caught.value)

    def test_what_the_library_says_is_passed_on(self, library, compiled):
        with pytest.raises(BackendError, match=r"no Edge TPU at all could be opened.*the port is on fire"):
            BACKEND.open(compiled, EdgeTpuOptions(library=library(NO_DEVICE="", SAYS='"the port is on fire"')))

    def test_a_library_that_aborts_takes_its_process_with_it(self, library, model):
        """Which is why it lives in a worker."""
        code = (
            "import sys, pathlib; from flyball_backends.edgetpu import *;"
            "EdgeTpuBackend().open(pathlib.Path(sys.argv[1]), EdgeTpuOptions(library=sys.argv[2]))"
        )
        command = [sys.executable, "-c", code, str(model), library(ABORTS="")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == -signal.SIGABRT
        assert "usb_driver.cc" in done.stderr

    def test_a_missing_library(self, model):
        with pytest.raises(BackendError, match=r"'libedgetpu-nowhere\.so\.1' cannot be loaded.*libedgetpu1-std"):
            BACKEND.open(model, EdgeTpuOptions(library="libedgetpu-nowhere.so.1"))

    def test_a_file_that_is_no_library(self, model, tmp_path):
        (tmp_path / "libedgetpu.so.1").write_bytes(b"\x7fELF, or so it says")
        with pytest.raises(BackendError, match="cannot be loaded"):
            BACKEND.open(model, EdgeTpuOptions(library=str(tmp_path / "libedgetpu.so.1")))

    def test_another_library(self, model):
        with pytest.raises(BackendError, match=r"'libc\.so\.6' is no Edge TPU library .*tflite_plugin_create_delegate"):
            BACKEND.open(model, EdgeTpuOptions(library="libc.so.6"))

    def test_another_backends_options(self, model):
        with pytest.raises(BackendError, match="expected its Options, found LiteRtOptions"):
            BACKEND.open(model, LiteRtOptions())


@pytest.mark.parametrize(
    ("device", "performance", "expected"),
    [
        ("", "", {}),
        ("usb", "", {"device": "usb"}),
        ("pci:1", "", {"device": "pci:1"}),
        # The library reads the clock only for a device that is named by number.
        ("", "Low", {"device": ":0", "Performance": "Low"}),
        ("usb", "Max", {"device": "usb:0", "Performance": "Max"}),
        ("pci:2", "High", {"device": "pci:2", "Performance": "High"}),
    ],
)
def test_the_librarys_own_option_names(device, performance, expected):
    assert delegate_options(EdgeTpuOptions(device=device, performance=performance)) == expected


@pytest.fixture
def machine(tmp_path):
    """An empty /sys and /dev, and what plugs devices in."""

    class Machine:
        sysfs, dev = tmp_path / "sys", tmp_path / "dev"

        def usb(self, port, vendor, product):
            folder = self.sysfs / "bus/usb/devices" / port
            folder.mkdir(parents=True)
            (folder / "idVendor").write_text(f"{vendor}\n")
            (folder / "idProduct").write_text(f"{product}\n")

        def pci(self, number, status=None):
            self.dev.mkdir(exist_ok=True)
            (self.dev / f"apex_{number}").touch()
            if status is not None:
                folder = self.sysfs / "class/apex" / f"apex_{number}"
                folder.mkdir(parents=True)
                (folder / "status").write_text(f"{status}\n")

        def scan(self):
            return scan(self.sysfs, self.dev)

    return Machine()


class TestScan:
    def test_nothing(self, machine):
        assert machine.scan() == []

    def test_both_usb_ids_and_no_other(self, machine):
        machine.usb("1-1", "1d6b", "0002")
        machine.usb("2-1", "18d1", "9302")
        machine.usb("1-3", "1a6e", "089a")
        machine.usb("1-4", "18d1", "089a")
        (machine.sysfs / "bus/usb/devices/1-1:1.0").mkdir()  # an interface: it has no ids
        found = machine.scan()
        assert [(a.kind, a.id, a.attributes["port"]) for a in found] == [
            ("edgetpu", "usb:0", "1-3"),
            ("edgetpu", "usb:1", "2-1"),
        ]
        assert "without firmware yet" in found[0].detail
        assert "with firmware" in found[1].detail

    def test_pcie_in_the_order_of_its_numbers(self, machine):
        for number in (10, 2):
            machine.pci(number, "ALIVE")
        machine.pci(3, "DEAD")
        machine.pci("control")
        found = machine.scan()
        assert [a.id for a in found] == ["pci:0", "pci:1", "pci:2"]
        assert [a.attributes["node"].rsplit("/")[-1] for a in found] == ["apex_2", "apex_3", "apex_10"]
        assert found[1].detail.endswith("apex_3, DEAD")
        assert found[1].attributes["status"] == "DEAD"

    def test_a_driver_without_status(self, machine):
        machine.pci(0)
        (found,) = machine.scan()
        assert "status" not in found.attributes

    def test_both_kinds(self, machine):
        machine.usb("1-1", "1a6e", "089a")
        machine.pci(0, "ALIVE")
        assert [a.id for a in machine.scan()] == ["usb:0", "pci:0"]


class TestProbe:
    def test_devices_and_library(self, machine, working):
        machine.usb("1-1", "18d1", "9302")
        found = EdgeTpuBackend(machine.sysfs, machine.dev, working[0]).probe()
        assert [a.id for a in found] == ["usb:0"]
        assert not working[1].exists()  # loaded, but no delegate made: probing must not take the device

    def test_devices_without_library(self, machine, caplog):
        machine.usb("1-1", "18d1", "9302")
        assert EdgeTpuBackend(machine.sysfs, machine.dev, "libedgetpu-nowhere.so.1").probe() == []
        assert "1 Edge TPU(s) without libedgetpu-nowhere.so.1" in caplog.text

    def test_a_library_without_devices(self, machine, working, caplog):
        assert EdgeTpuBackend(machine.sysfs, machine.dev, working[0]).probe() == []
        assert caplog.text == ""


class TestPycoral:
    """Boards that have pycoral and no LiteRT of their own; in another process with stand-ins for the packages."""

    CODE = (
        "import sys, pathlib; from flyball_backends.edgetpu import *;"
        "options = EdgeTpuOptions(**eval(sys.argv[2])); session = None"
        "\ntry: session = EdgeTpuBackend().open(pathlib.Path(sys.argv[1]), options)"
        "\nexcept BackendError as error: print(error)"
        "\nelse: print('opened', session.signature)"
    )
    GENUINE = (
        "class Interpreter:\n"
        "    def allocate_tensors(self): pass\n"
        "    def get_input_details(self): return []\n"
        "    get_output_details = get_input_details\n"
        "def make_interpreter(path, device=None):\n"
        "    print('made', device)\n"
        "    if device == 'pci': raise ValueError('Failed to load delegate')\n"
        "    if device == 'usb': raise SystemError('another NumPy')\n"
        "    return Interpreter()\n"
    )

    def run(self, tmp_path, library, code, **options):
        for package in ("ai_edge_litert", "tflite_runtime"):
            (tmp_path / package).mkdir()
            (tmp_path / package / "__init__.py").write_text("raise ImportError('not here')")
        if code is not None:
            (tmp_path / "pycoral/utils").mkdir(parents=True)
            (tmp_path / "pycoral/__init__.py").touch()
            (tmp_path / "pycoral/utils/__init__.py").touch()
            (tmp_path / "pycoral/utils/edgetpu.py").write_text(code)
        (tmp_path / "libedgetpu.so.1").symlink_to(library)
        (tmp_path / "m.tflite").write_bytes(b"edgetpu-custom-op")
        done = subprocess.run(
            [sys.executable, "-c", self.CODE, str(tmp_path / "m.tflite"), repr(options)],
            env={"PYTHONPATH": str(tmp_path), "LD_LIBRARY_PATH": str(tmp_path)},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout

    def test_the_genuine_one_opens(self, tmp_path, working):
        said = self.run(tmp_path, working[0], self.GENUINE, device="usb:1")
        assert said.startswith("made usb:1\nopened Signature")

    def test_any_device(self, tmp_path, working):
        assert self.run(tmp_path, working[0], self.GENUINE).startswith("made None\nopened")

    def test_no_device(self, tmp_path, working):
        assert "no Edge TPU 'pci' could be opened" in self.run(tmp_path, working[0], self.GENUINE, device="pci")

    def test_a_failure_beneath_it(self, tmp_path, working):
        assert "SystemError: another NumPy" in self.run(tmp_path, working[0], self.GENUINE, device="usb")

    @pytest.mark.parametrize("options", [{"performance": "Low"}, {"threads": 2}])
    def test_options_it_does_not_take(self, tmp_path, working, options):
        assert "pycoral takes no `performance`" in self.run(tmp_path, working[0], self.GENUINE, **options)

    @pytest.mark.parametrize("code", [None, "def corals(): return 'reef'", "raise RuntimeError('another project')"])
    def test_the_unrelated_project_does_not_count(self, tmp_path, working, code):
        assert "needs LiteRT, which cannot be imported" in self.run(tmp_path, working[0], code)
