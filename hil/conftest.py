"""pytest hil --target local|ssh://user@host[:port] [--report FILE] [--ladder DIR]"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from broker import Broker, open_broker
from report import Case, Report
from service import ProcessService, UnitService
from target import Facts, parse
from targets import LocalTarget, SshTarget, open_target

REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hil", "Flyball on a target")
    group.addoption("--target", default="local", help='"local" (default) or "ssh://user@host[:port]"')
    group.addoption("--report", default="", help="write a JSON report to this file")
    group.addoption("--ladder", default="", help="serve this ladder of the target instead of the example")


def pytest_configure(config: pytest.Config) -> None:
    try:
        parse(config.getoption("--target"))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    now = datetime.datetime.now(datetime.timezone.utc)
    config.stash[REPORT] = Report(config.getoption("--target"), now.isoformat(timespec="seconds"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:  # one Case per test: its call, or the set-up that ended it
    outcome: pytest.TestReport = yield  # type: ignore[misc]
    if outcome.when == "call" or (outcome.when == "setup" and not outcome.passed):
        reason = outcome.longrepr[2] if isinstance(outcome.longrepr, tuple) else str(outcome.longrepr or "")
        reason = reason.removeprefix("Skipped: ")
        measured = dict(item.user_properties)
        case = Case(item.name, outcome.outcome, reason, round(outcome.duration, 3), measured)  # type: ignore[arg-type]
        item.config.stash[REPORT].cases.append(case)
    return outcome  # type: ignore[return-value]


def pytest_sessionfinish(session: pytest.Session) -> None:
    place = session.config.getoption("--report")
    if place:
        session.config.stash[REPORT].write(Path(place))


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    return request.config.stash[REPORT]


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Iterator[LocalTarget | SshTarget]:
    opened = open_target(parse(request.config.getoption("--target")))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def facts(target: LocalTarget | SshTarget, report: Report) -> Facts:
    found = target.facts()
    report.facts, report.has = dict(found.values), sorted(found.abilities)
    return found


@pytest.fixture(scope="session")
def broker(target: LocalTarget | SshTarget) -> Iterator[Broker | None]:
    opened = open_broker(target)
    yield opened
    if opened is not None:
        opened.close()


@pytest.fixture(scope="session")
def service(
    request: pytest.FixtureRequest, target: LocalTarget | SshTarget, facts: Facts, broker: Broker | None
) -> Iterator[ProcessService | UnitService]:
    """Not started: that is the first case."""
    ladder, port = request.config.getoption("--ladder"), broker.daemon_port if broker else None
    made: ProcessService | UnitService
    if isinstance(target, LocalTarget):
        made = ProcessService(target, ladder, port)
    elif facts.has("systemctl") and facts.has("flyball"):
        made = UnitService(target, ladder, port)
    else:
        pytest.fail("the target has no installed Flyball: expected the Debian package (flyball, flyball.service)")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def metrics(target: LocalTarget | SshTarget, service: ProcessService | UnitService) -> Callable[[], str]:
    """The metrics page, fetched on the target."""
    fetch = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
    url = f"http://127.0.0.1:{service.metrics_port}/metrics"
    return lambda: target.run(["python3", "-c", fetch, url]).checked()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, float | str], None]:
    """Puts a figure beside the case's outcome in the report."""
    return lambda name, value: request.node.user_properties.append((name, value))


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object], float], object]:
    """Asks until the answer is truthy, and returns the last one."""

    def ask(question: Callable[[], object], timeout_s: float) -> object:
        deadline = time.monotonic() + timeout_s
        while not (answer := question()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return answer

    return ask
