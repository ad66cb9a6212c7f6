"""What diag and logs bring: whatever happens inside one message, and nothing secret."""

import logging
from typing import Any

import msgspec
import pytest
from orders_side import Order

from flyball.uplink.diagnosis import MOST_BYTES, DiagArgs, DiagResult, LogsArgs, LogsResult, diag, fit, logs
from flyball.uplink.execution import MOST_RESULT_BYTES
from flyball.uplink.logbook import MOST_CHARACTERS, MOST_LINE, MOST_LINES, Logbook
from flyball.uplink.messages import MAX_PAYLOAD, encode

pytestmark = pytest.mark.anyio

SECRET = "hunter2-Zq"


def logger_into(book: Logbook) -> logging.Logger:
    logger = logging.Logger("flyball.test")
    logger.addHandler(book)
    return logger


async def bundle(args: DiagArgs, book: Logbook | None = None, **sections: Any) -> DiagResult:
    def told(value: Any) -> Any:
        async def section() -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        return section

    handler = diag({name: told(value) for name, value in sections.items()}, book or Logbook(), [SECRET])
    found = await handler.run(args, Order())
    assert isinstance(found, DiagResult)
    return found


async def test_a_bundle_has_all_sections_and_no_secret() -> None:
    book = Logbook()
    logger_into(book).warning("connecting to mqtt://bob:%s@broker", "s3cret")
    found = await bundle(
        DiagArgs(),
        book,
        configuration={"uplink": {"username": "bob", "password": "s3cret", "password_file": "/etc/x"}},
        software={"note": f"it is {SECRET}"},
        doctor=RuntimeError(f"token={SECRET}"),
    )
    text = msgspec.json.encode(found).decode()
    assert SECRET not in text
    assert "s3cret" not in text
    assert set(found.sections) == {"configuration", "software", "logs"}
    assert found.sections["configuration"]["uplink"]["password_file"] == "/etc/x"
    assert "RuntimeError" in found.errors["doctor"]
    assert found.cut == ()


async def test_sections_can_be_chosen() -> None:
    found = await bundle(DiagArgs(sections=("software", "nope")), software={"a": 1}, doctor=["x"])
    assert found.sections == {"software": {"a": 1}}
    assert found.errors == {"nope": "no such section"}


async def test_what_cannot_be_told_is_told_so() -> None:
    found = await bundle(DiagArgs(sections=("odd",)), odd=object())
    assert "odd" in found.errors


async def test_a_bundle_always_fits_one_message() -> None:
    book = Logbook()
    logger = logger_into(book)
    for number in range(500):
        logger.error("%d %s", number, "x " * 500)
    huge = {"a": "x " * 10_000}
    found = await bundle(DiagArgs(), book, big=huge, doctor=["y " * 250] * 200, small={"a": 1}, more=["z " * 7_500] * 9)
    size = len(msgspec.json.encode(found))
    assert size <= MOST_RESULT_BYTES
    assert len(encode(found).payload) <= MAX_PAYLOAD
    assert set(found.cut) == {"big", "doctor", "more", "logs"}
    assert "big" not in found.sections
    assert found.sections["small"] == {"a": 1}
    assert found.sections["logs"][-1]["text"].startswith("499 ")  # the newest stay


def test_errors_and_many_sections_never_make_it_too_large() -> None:
    sections = {f"section-{n}": ["v" * 900] * 30 for n in range(40)}
    found = fit(sections, {f"e{n}": "x" * 500 for n in range(30)})
    assert len(msgspec.json.encode(found)) <= MOST_RESULT_BYTES


async def test_logs_give_the_newest_lines_of_a_level() -> None:
    book = Logbook()
    logger = logger_into(book)
    logger.debug("not kept")
    for number in range(20):
        logger.info("info %d", number)
        logger.error("error %d", number)

    async def ask(**args: Any) -> LogsResult:
        found = await logs(book).run(LogsArgs(**args), Order())
        assert isinstance(found, LogsResult)
        return found

    assert [line.text for line in (await ask(lines=3)).lines] == ["error 18", "info 19", "error 19"]
    assert [line.text for line in (await ask(lines=2, level="error")).lines] == ["error 18", "error 19"]
    assert len((await ask(lines=1000)).lines) == 40
    for _ in range(200):
        logger.error("x " * 500)
    found = await ask(lines=1000)
    assert found.cut
    assert MOST_BYTES * 0.9 < len(msgspec.json.encode(found)) <= MOST_RESULT_BYTES


def test_the_logbook_is_bounded_and_redacts_whole_lines() -> None:
    book = Logbook([SECRET])
    logger = logger_into(book)
    for number in range(3 * MOST_LINES):
        logger.info("line %d", number)
    assert len(book.newest(10 * MOST_LINES)) == MOST_LINES
    for _ in range(200):
        logger.info("x " * 10_000)
    lines = book.newest(MOST_LINES)
    assert sum(len(line.text) for line in lines) <= MOST_CHARACTERS
    assert max(len(line.text) for line in lines) == MOST_LINE
    logger.info("%s-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----", "x" * (MOST_LINE - 40), "SGFsbG8" * 20)
    assert "SGFsbG8" not in book.newest(1)[0].text
    logger.info("it is %s", SECRET)
    assert SECRET not in book.newest(1)[0].text
    try:
        raise ValueError(f"password={SECRET}-other")
    except ValueError:
        logger.exception("it failed")
    assert "Traceback" in book.newest(1)[0].text
    assert SECRET not in book.newest(1)[0].text


def test_a_line_that_cannot_be_made_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    book = Logbook()
    logger_into(book).info("%d", "no number")
    assert book.newest(1) == []
