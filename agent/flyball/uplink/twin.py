"""The desired document of this device, and what it reports of it.

twin/desired -> version grows, boundedly -> every key checked -> settings tried -> kept -> twin/reported
                        \\-> refused, with the keys and why: what holds goes on

Never applies a part of a document, and never tries one twice that was refused or that ended the daemon: it comes again
with every reconnect, being retained. What is kept is read anew from the store for each document, so that an operator
may reset it beside the running daemon (`flyball uplink reset-twin`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from flyball.errors import FlyballError, MessageError, StateError
from flyball.uplink.configuring import Configuring, Documents, SettingsRefused
from flyball.uplink.messages import (
    MAX_VERSION,
    Encoded,
    TwinDesired,
    TwinDocument,
    TwinError,
    TwinReported,
    decode,
    encode,
)
from flyball.uplink.state import StateFile

log = logging.getLogger(__name__)

DOCUMENT = "twin"
# One message may not use up the versions: with 2^53 of them and steps of at most this, 9,000,000,000 are needed.
MOST_STEP = 1_000_000

Errors = tuple[TwinError, ...]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """`attempt` is the version that is being tried; `refused` is the digest of the last payload that was refused, for
    the reasons in `errors`."""

    version: int = 0
    groups: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    attempt: int | None = None
    reports: int = 0
    errors: Errors = ()
    refused: str = ""
    refused_version: int | None = None


class Twin:
    def __init__(self, configuring: Configuring, documents: Documents) -> None:
        self._configuring = configuring
        self._documents = documents
        self._version: int | None = None
        self._groups: tuple[str, ...] = ()
        self._next: tuple[bytes, bool] | None = None  # the newest document that has not been looked at
        self._due = asyncio.Event()
        configuring.changed = self.again

    def version(self) -> int | None:
        """Of the document in force; None before there was one."""
        return self._version

    def groups(self) -> tuple[str, ...]:
        """Of the document in force."""
        return self._groups

    def desired(self, payload: bytes, deflated: bool = False) -> None:
        """A document has come. Of several that wait only the newest counts."""
        self._next = (payload, deflated)
        self._due.set()

    def again(self) -> None:
        """Report, although nothing new is desired: another session, or settings that were changed by a command."""
        self._due.set()

    async def recover(self) -> list[str]:
        """After a start: what became of settings and of a document that were being tried. Raises StateError."""
        settings = await self._configuring.recover()
        kept = await self._kept()
        if kept.attempt is None:
            return [settings] if settings else []
        text = f"the daemon ended while it tried version {kept.attempt}; write a new version to try again"
        errors = (TwinError(key="version", message=text),)
        await self._save(msgspec.structs.replace(kept, errors=errors, refused_version=kept.attempt))
        return [settings or text]

    async def work(self, publish: Callable[[Encoded], None], epoch: Callable[[], str]) -> None:
        """For ever; cancelled by the daemon's end."""
        while True:
            await self._due.wait()
            self._due.clear()
            found, self._next = self._next, None
            try:
                if found is not None:
                    await self.take(*found)
                publish(encode(await self.report(epoch())))
            except FlyballError as error:
                log.error("uplink: the desired document could not be handled: %s", error)
            except Exception:
                # The boundary of this loop.
                log.exception("uplink: the desired document could not be handled")

    async def take(self, payload: bytes, deflated: bool = False) -> None:
        """Applies the document, or keeps why not. An empty payload is a document that was removed: what holds goes
        on. Raises StateError."""
        kept = await self._kept()
        digest = hashlib.sha256(payload).hexdigest()
        if not payload or digest == kept.refused:
            return
        try:
            desired = decode(payload, TwinDesired, deflated=deflated)
        except MessageError as error:
            key = "version" if "$.version" in str(error) else ""
            await self._refuse(kept, digest, None, [TwinError(key=key, message=str(error))])
            return
        if desired.version == kept.version:
            return  # comes with every reconnect
        refusal = _version_refused(desired.version, kept)
        found = refusal or read_document(bytes(desired.doc))
        if isinstance(found, TwinDocument):
            await self._apply(kept, digest, desired.version, found)
        else:
            await self._refuse(kept, digest, desired.version, found)

    async def report(self, epoch: str) -> TwinReported:
        """Counts the reports. Raises StateError."""
        kept = await self._kept()
        kept = await self._save(msgspec.structs.replace(kept, reports=kept.reports + 1))
        return TwinReported(
            epoch=epoch,
            version=kept.reports,
            desired_version=kept.version,
            doc=TwinDocument(groups=kept.groups, tags=kept.tags, config=dict(await self._configuring.settings())),
            errors=kept.errors,
            refused_version=kept.refused_version,
        )

    async def _apply(self, kept: Kept, digest: str, version: int, document: TwinDocument) -> None:
        try:
            if document.config is not None:
                self._configuring.check({k: v for k, v in document.config.items() if v is not None})
                # On the disk before the trial: a document that ends the daemon is not tried at every start.
                kept = await self._save(msgspec.structs.replace(kept, attempt=version))
                await self._configuring.replace(document.config)
        except SettingsRefused as error:
            problems = [
                TwinError(key=f"config.{key}" if key else "config", message=text) for key, text in error.problems
            ]
            await self._refuse(kept, digest, version, problems)
        except StateError:
            raise
        except FlyballError as error:
            await self._refuse(kept, digest, version, [TwinError(key="config", message=str(error))])
        else:
            await self._save(
                Kept(version=version, groups=document.groups, tags=dict(document.tags), reports=kept.reports)
            )

    async def _refuse(self, kept: Kept, digest: str, version: int | None, errors: Sequence[TwinError]) -> None:
        log.warning("uplink: a desired document was refused: %s", "; ".join(f"{e.key}: {e.message}" for e in errors))
        await self._save(
            msgspec.structs.replace(kept, attempt=None, errors=tuple(errors), refused=digest, refused_version=version)
        )

    async def _kept(self) -> Kept:
        body = await self._documents.document(DOCUMENT)
        return self._hold(Kept() if body is None else decode(body, Kept))

    async def _save(self, kept: Kept) -> Kept:
        await self._documents.save_document(DOCUMENT, msgspec.json.encode(kept))
        return self._hold(kept)

    def _hold(self, kept: Kept) -> Kept:
        self._version = kept.version or None
        self._groups = kept.groups
        return kept


def read_document(raw: bytes) -> TwinDocument | list[TwinError]:
    """The document, or what is wrong with which of its keys, all of them."""
    try:
        members = decode(raw, dict[str, Any])
    except MessageError as error:
        return [TwinError(key="", message=f"doc: {error}")]
    fields = {f.name: f for f in msgspec.structs.fields(TwinDocument)}
    errors: list[TwinError] = []
    for name, value in members.items():
        if name not in fields:
            errors.append(TwinError(key=_short(name), message=f"unknown; expected {', '.join(fields)}"))
            continue
        # Entry by entry where there are entries, so that each mistake has its own key.
        entries = value.items() if isinstance(value, dict) and name != "groups" else [("", value)]
        for entry, inner in entries:
            try:
                msgspec.convert({entry: inner} if entry else inner, fields[name].type)
            except msgspec.ValidationError as error:
                errors.append(TwinError(key=_short(f"{name}.{entry}" if entry else name), message=str(error)))
    if errors:
        return errors
    try:
        return msgspec.convert(members, TwinDocument)
    except msgspec.ValidationError as error:
        return [TwinError(key="", message=str(error))]


def reset(file: StateFile, version: int) -> int:
    """An operator's word: the next document has to be newer than `version`. What holds goes on. Gives the version
    that was in force. Raises StateError, MessageError."""
    if not 0 <= version <= MAX_VERSION:
        raise MessageError(f"version: expected 0 to {MAX_VERSION}, found {version}")
    body = file.document(DOCUMENT)
    kept = Kept() if body is None else decode(body, Kept)
    fresh = msgspec.structs.replace(kept, version=version, errors=(), refused="", refused_version=None, attempt=None)
    file.save_document(DOCUMENT, msgspec.json.encode(fresh))
    return kept.version


def _version_refused(version: int, kept: Kept) -> list[TwinError]:
    if version < kept.version:
        text = f"{version} is older than {kept.version}, which is in force"
    elif version > kept.version + MOST_STEP:
        text = f"{version} is more than {MOST_STEP} above {kept.version}, which is in force"
    elif version == kept.attempt:
        text = f"the daemon ended while it tried version {version}; write a new version to try again"
    else:
        return []
    return [TwinError(key="version", message=text)]


def _short(key: str) -> str:
    return key if len(key) <= 128 else f"{key[:125]}..."
