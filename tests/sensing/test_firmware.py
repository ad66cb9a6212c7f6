"""The firmware's mailbox without a Raspberry: the message's layout, the order of the ways, what each failure says."""

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.sensing.firmware import IOCTL_PROPERTY, TEXT_BYTES, ask, decode, encode, run

NO_PROGRAM: tuple[Path, ...] = ()


def answer(text: bytes, status: int = 0x80000000, error: int = 0) -> bytes:
    return struct.pack("=6I4096sI", 4124, status, 0x30080, 4096, 0x80000000 | len(text), error, text, 0)


def firmware(text: bytes, asked: list[str], **words: int) -> Callable[[int, int, bytearray], int]:
    """Stands for the kernel: notes the device's name, and answers in the buffer that it was given."""

    def ioctl(descriptor: int, request: int, message: bytearray) -> int:
        assert request == IOCTL_PROPERTY
        asked.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        message[:] = answer(text, **words)
        return 0

    return ioctl


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_request_has_the_kernels_layout() -> None:
    message = encode("get_throttled")
    assert len(message) == 4124
    assert struct.unpack("=6I", message[:24]) == (4124, 0, 0x00030080, 4096, 0, 0)
    assert message[24:37] == b"get_throttled"
    assert not any(message[37:])


def test_the_ioctls_number_follows_the_size_of_a_pointer() -> None:
    expected = {8: 0xC0086400, 4: 0xC0046400}
    assert expected[struct.calcsize("P")] == IOCTL_PROPERTY


@pytest.mark.parametrize("command", ["x" * TEXT_BYTES, "température"])
def test_a_command_that_does_not_fit_is_refused(command: str) -> None:
    with pytest.raises(ValueError, match=r"expected a command|ascii"):
        encode(command)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=TEXT_BYTES - 1))
def test_what_the_firmware_says_comes_out(text: str) -> None:
    if text.startswith("error="):
        return
    assert decode("x", answer(text.encode())) == text


def test_what_follows_the_first_nul_is_left_from_the_request() -> None:
    assert decode("x", answer(b"temp=48.3'C\n\0ttled")) == "temp=48.3'C"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (answer(b"throttled=0x0", status=0), "did not take 'x' .status 0x00000000"),
        (answer(b"throttled=0x0", status=0x80000001), "did not take"),
        (answer(b"bad", error=2), "error 2: 'bad'"),
        (answer(b'error=1 error_msg="Command not registered"'), "refuses 'x'.*not registered"),
        (answer(b""), "with nothing"),
        (answer(b" \n"), "with nothing"),
        (answer(b"a" * TEXT_BYTES), "is cut at 4096 bytes"),
    ],
)
def test_what_is_no_answer_is_an_error_that_says_why(message: bytes, says: str) -> None:
    with pytest.raises(OSError, match=says):
        decode("x", message)


def test_the_device_for_commands_is_asked_first_and_alone(tmp_path: Path) -> None:
    asked: list[str] = []
    for name in ("vcio_gencmd", "vcio"):
        (tmp_path / name).touch()
    said = ask("get_throttled", tmp_path, programs=NO_PROGRAM, ioctl=firmware(b"throttled=0x50000", asked))
    assert (said, asked) == ("throttled=0x50000", ["vcio_gencmd"])


def test_an_older_kernel_has_the_other_device(tmp_path: Path) -> None:
    asked: list[str] = []
    (tmp_path / "vcio").touch()
    assert ask("x", tmp_path, programs=NO_PROGRAM, ioctl=firmware(b"y", asked)) == "y"
    assert asked == ["vcio"]


def test_a_device_that_fails_gives_way_to_the_next(tmp_path: Path) -> None:
    for name in ("vcio_gencmd", "vcio"):
        (tmp_path / name).touch()
    asked: list[str] = []
    works = firmware(b"y", asked)

    def ioctl(descriptor: int, request: int, message: bytearray) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("gencmd"):
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        return works(descriptor, request, message)

    assert ask("x", tmp_path, programs=NO_PROGRAM, ioctl=ioctl) == "y"


def test_a_refusal_is_an_answer_and_nobody_else_is_asked(tmp_path: Path) -> None:
    asked: list[str] = []
    for name in ("vcio_gencmd", "vcio"):
        (tmp_path / name).touch()
    refusal = firmware(b'error=1 error_msg="Command not registered"', asked)
    with pytest.raises(OSError, match="refuses 'pmic_read_adc'"):
        ask("pmic_read_adc", tmp_path, programs=[program(tmp_path / "vcgencmd", "echo 1")], ioctl=refusal)
    assert asked == ["vcio_gencmd"]


def test_a_device_that_this_user_may_not_use_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "vcio").touch()
    started = tmp_path / "started"

    def denied(descriptor: int, request: int, message: bytearray) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with pytest.raises(PermissionError, match=r"vcio: Operation not permitted: .*group video.*DeviceAllow"):
        ask("x", tmp_path, programs=[program(tmp_path / "vcgencmd", f"touch {started}")], ioctl=denied)
    assert not started.exists()


def test_a_file_that_is_no_device_fails_in_the_kernels_words(tmp_path: Path) -> None:
    (tmp_path / "vcio").touch()
    with pytest.raises(OSError, match="vcio: Inappropriate ioctl"):
        ask("x", tmp_path, programs=NO_PROGRAM)


def test_without_any_way_the_firmware_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither .*/vcio_gencmd nor .*/vcio nor vcgencmd"):
        ask("x", tmp_path, programs=[tmp_path / "vcgencmd"])


def test_the_program_is_the_last_resort_and_gets_the_commands_words(tmp_path: Path) -> None:
    echo = program(tmp_path / "vcgencmd", 'echo "$#:$1:$2"')
    assert ask("get_mem arm", tmp_path, programs=[tmp_path / "missing", echo]) == "2:get_mem:arm"


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    hangs = program(tmp_path / "vcgencmd", f"echo $$ > {pid}; exec sleep 60")
    with pytest.raises(TimeoutError, match=r"vcgencmd x: no answer within 1 s"):
        run(hangs, "x", timeout_s=1.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo VCHI initialization failed; exit 255", "exit status 255: 'VCHI initialization failed'"),
        ("echo cannot open >&2; exit 1", "exit status 1: 'cannot open'"),
        ("true", "with nothing"),
        ("echo 'error=2 error_msg=\"Invalid arguments\"'", "refuses 'x'.*Invalid arguments"),
    ],
)
def test_a_program_that_fails_is_told(script: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=says):
        run(program(tmp_path / "vcgencmd", script), "x")
