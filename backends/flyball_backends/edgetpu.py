"""Google Coral: the Edge TPU, through its library as a delegate of LiteRT.

_edgetpu.tflite file -> libedgetpu delegate -> Interpreter -> arrays

Loads the library only inside probe() and open(): it aborts the whole process on a USB error. Runs nothing itself that
it was not compiled for: operations outside the compiled part stay on the CPU, as LiteRT does it.
"""

from __future__ import annotations

import ctypes
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Sequence

from flyball_backends.checks import check_artifact, check_options
from flyball_backends.contract import Accelerator, BackendError
from flyball_backends.cores import usable_cores
from flyball_backends.litert import InterpreterSession, Runtime, load_runtime, open_interpreter

log = logging.getLogger(__name__)

LIBRARY = "libedgetpu.so.1"
# USB ids before and after the library has loaded the firmware into the device.
_USB_IDS = {("1a6e", "089a"): "without firmware yet", ("18d1", "9302"): "with firmware"}
_COMPILED_OPERATION = b"edgetpu-custom-op"


@dataclass(frozen=True)
class EdgeTpuOptions:
    """device: "" (any), "usb", "pci", or the N-th of a kind in the library's own order: "usb:N", "pci:N".
    performance: the clock; "" leaves it to the library (Max). library: its name for the loader, or its path.
    threads: for operations that stay on the CPU; 0 = the physical cores this process may use.
    """

    device: str = ""
    performance: Literal["", "Low", "Medium", "High", "Max"] = ""
    library: str = LIBRARY
    threads: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"|(usb|pci)(:[0-9]{1,3})?", self.device):
            raise ValueError("device: expected '', 'usb', 'pci', 'usb:N' or 'pci:N', found {!r}".format(self.device))
        if not self.library:
            raise ValueError("library: expected a file name or path, found ''")
        if not 0 <= self.threads <= 256:
            raise ValueError("threads: expected 0 to 256, found {}".format(self.threads))


class EdgeTpuBackend:
    """Opens .tflite files that edgetpu_compiler has compiled."""

    name = "edgetpu"
    api_version = 1
    Options = EdgeTpuOptions

    def __init__(self, sysfs: Path = Path("/sys"), dev: Path = Path("/dev"), library: str = LIBRARY) -> None:
        self._sysfs, self._dev, self._library = sysfs, dev, library

    def probe(self) -> Sequence[Accelerator]:
        """The Edge TPUs that are plugged in, when the library is there to drive them."""
        found = scan(self._sysfs, self._dev)
        if found:
            try:
                ctypes.CDLL(self._library)
            except OSError as error:
                log.warning("%d Edge TPU(s) without %s: %s; %s", len(found), self._library, error, _INSTALL)
                return []
        return found

    def open(self, artifact: Path, options: EdgeTpuOptions) -> InterpreterSession:
        check_options(self, options)
        check_artifact(artifact)
        _check_library(artifact, options)
        interpreter = self._interpreter(artifact, options)
        if _COMPILED_OPERATION not in artifact.read_bytes():
            log.warning(
                "%s is not compiled for the Edge TPU: all of it runs on the CPU; compile it with edgetpu_compiler, or "
                "use the backend 'litert'",
                artifact,
            )
        return InterpreterSession(interpreter, artifact)

    def _interpreter(self, artifact: Path, options: EdgeTpuOptions) -> Any:
        try:
            runtime = load_runtime()
        except BackendError as error:
            coral = _pycoral()
            if coral is None:
                raise BackendError("{}: {}".format(artifact, error)) from error
            return _made_by_pycoral(coral, artifact, options)
        delegate = _delegate(runtime, artifact, options)
        return open_interpreter(runtime, artifact, options.threads or usable_cores(), [delegate])


_INSTALL = "install Coral's package libedgetpu1-std (Debian), or give the option `library` its path"


def delegate_options(options: EdgeTpuOptions) -> Dict[str, str]:
    """The library's own option names. It reads `Performance` only when `device` names one by number
    (libedgetpu, tflite/edgetpu_delegate_for_custom_op_tflite_plugin.cc), so that "any" becomes the first."""
    device = options.device
    settings: Dict[str, str] = {}
    if options.performance:
        settings["Performance"] = options.performance
        if ":" not in device:
            device += ":0"
    if device:
        settings["device"] = device
    return settings


def _check_library(artifact: Path, options: EdgeTpuOptions) -> None:
    """Before load_delegate does it, whose own failure leaves a half-made object that complains while it is deleted."""
    try:
        library = ctypes.CDLL(options.library)
    except OSError as error:
        raise BackendError(
            "{}: the Edge TPU library {!r} cannot be loaded ({}): {}".format(artifact, options.library, error, _INSTALL)
        ) from error
    for function in ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate"):
        if not hasattr(library, function):
            raise BackendError(
                "{}: {!r} is no Edge TPU library (it has no {}): {}".format(
                    artifact, options.library, function, _INSTALL
                )
            )


def _delegate(runtime: Runtime, artifact: Path, options: EdgeTpuOptions) -> Any:
    try:
        return runtime.load_delegate(options.library, delegate_options(options))
    except ValueError as error:  # the library gave no delegate; it seldom says why
        raise BackendError(_no_device(artifact, options, error)) from error


def _no_device(artifact: Path, options: EdgeTpuOptions, error: Exception) -> str:
    said = " ".join(str(error).split())
    return (
        "{}: no Edge TPU {} could be opened ({}): check that it is plugged in (`lsusb` shows 1a6e:089a or 18d1:9302, "
        "`ls /dev/apex_*` the PCIe ones), that this user may open it (groups plugdev, apex) and that no other process "
        "holds it".format(artifact, repr(options.device) if options.device else "at all", said)
    )


def _pycoral() -> Optional[Any]:
    """Coral's own Python package, which some boards have without a LiteRT. Another project has the same name."""
    try:
        from pycoral.utils import edgetpu
    except Exception:  # absent, the other project, or a build for another Python or NumPy: open() says what is needed
        return None
    return edgetpu if callable(getattr(edgetpu, "make_interpreter", None)) else None


def _made_by_pycoral(coral: Any, artifact: Path, options: EdgeTpuOptions) -> Any:
    """pycoral passes on the device alone; library, clock and threads are its own."""
    if options.performance or options.library != LIBRARY or options.threads:
        raise BackendError(
            "{}: pycoral takes no `performance`, `library` or `threads`; remove them, or pip install "
            "'flyball[litert]'".format(artifact)
        )
    try:
        return coral.make_interpreter(str(artifact), device=options.device or None)
    except ValueError as error:
        raise BackendError(_no_device(artifact, options, error)) from error
    except Exception as error:  # tflite-runtime beneath it raises whatever its NumPy makes of it
        raise BackendError(
            "{}: pycoral cannot open it: {}: {}".format(artifact, type(error).__name__, error)
        ) from error


def scan(sysfs: Path = Path("/sys"), dev: Path = Path("/dev")) -> List[Accelerator]:
    """Edge TPUs by their traces in /sys and /dev, without any library.

    USB: bus/usb/devices/*/idVendor and idProduct. PCIe: the gasket driver's /dev/apex_N, with its state in
    class/apex/apex_N/status (ALIVE, DEAD, LAMED). Numbers count up from 0 within a kind, in the order of the ports.
    """
    found: List[Accelerator] = []
    for device in sorted((sysfs / "bus/usb/devices").glob("*")):
        state = _USB_IDS.get((_line(device / "idVendor"), _line(device / "idProduct")))
        if state is not None:
            number = len(found)
            detail = "Coral USB Accelerator at {}, {}".format(device.name, state)
            found.append(Accelerator("edgetpu", "usb:{}".format(number), detail, {"port": device.name}))
    nodes = [node for node in dev.glob("apex_*") if node.name[5:].isdigit()]
    for number, node in enumerate(sorted(nodes, key=lambda n: int(n.name[5:]))):
        status = _line(sysfs / "class/apex" / node.name / "status")
        detail = "Coral PCIe at {}{}".format(node, ", " + status if status else "")
        attributes = {"node": str(node)}
        if status:
            attributes["status"] = status
        found.append(Accelerator("edgetpu", "pci:{}".format(number), detail, attributes))
    return found


def _line(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
