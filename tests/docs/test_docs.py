"""The documents speak of what is there: every key, every command, every link."""

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main

from flyball.cli import app
from flyball.config import Config
from flyball.ladder.manifest import load

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")]
)


def keys(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        arguments = typing.get_args(field.type) or (field.type,)
        structs = [t for t in (field.type, *arguments) if isinstance(t, type) and issubclass(t, msgspec.Struct)]
        name = f"{prefix}{field.encode_name}"
        if not structs:
            yield name
        elif typing.get_origin(field.type) is dict:
            yield from keys(structs[0], f"{name}.NAME.")
        else:
            yield from keys(structs[0], f"{name}.")


def test_every_configuration_key_is_documented() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    section, missing = "", []
    named = set()
    for line in text.splitlines():
        for cell in re.findall(r"`([a-z_.A-Z0-9*]+)`", line.split("|")[1] if line.startswith("|") else ""):
            if "." in cell:
                section = cell.rsplit(".", 1)[0]
                named.add(cell)
            else:
                named |= {f"{section}.{cell}", cell}
                if cell.startswith("_"):  # `restart_backoff_s`, `_max_s`
                    named |= {n.removesuffix("_s") + cell for n in list(named) if n.endswith("backoff_s")}
    for key in keys(Config):
        if key in ("schema",) or key in named or re.sub(r"limits\.\w+$", "limits.*", key) in named:
            continue
        missing.append(key)
    assert missing == []


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if hasattr(command, "commands"):  # a group: typer brings its own copy of click
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    else:
        yield path


@pytest.fixture(scope="module")
def known_commands() -> set[tuple[str, ...]]:
    if not app.app.registered_commands:
        app._assemble()
    return set(commands(typer.main.get_command(app.app)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_commands_in_the_documents_exist(document: Path, known_commands: set[tuple[str, ...]]) -> None:
    groups = {path[0] for path in known_commands if len(path) > 1}
    for line in re.findall(r"(?:^ {4}|^    |`)(?:sudo )?flyball ([a-z][a-z -]*)", document.read_text(), re.MULTILINE):
        words = tuple(line.split())
        path = words[:2] if words[0] in groups else words[:1]
        if len(path) == 1 and path[0] in groups:
            continue
        assert path in known_commands, f"{document.name}: flyball {line}"


def rungs_named(text: str) -> set[str]:
    """In commands about the example ladder `defects`."""
    found = set(re.findall(r"flyball switch defects ([\w.-]+)", text))
    found |= set(re.findall(r"flyball infer defects [^\n]*--rung[ =]([\w.-]+)", text))
    return found - {"auto", "RUNG"}


def helps(command: Any) -> Iterator[str]:
    yield command.help or ""
    for inner in getattr(command, "commands", {}).values():
        yield from helps(inner)


def test_the_rungs_in_the_examples_exist(known_commands: set[tuple[str, ...]]) -> None:
    known = {rung.name for rung in load(ROOT / "examples/defects/ladder").manifest.rung}
    places = {str(d.relative_to(ROOT)): d.read_text() for d in DOCUMENTS}
    places |= {f"help {i}": text for i, text in enumerate(helps(typer.main.get_command(app.app)))}
    named = {place: rungs_named(text) for place, text in places.items()}
    assert any(place.startswith("help") and rungs for place, rungs in named.items()), "switch --help has an example"
    assert {place: rungs - known for place, rungs in named.items() if rungs - known} == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} -> {target}"
