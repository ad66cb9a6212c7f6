"""Writes debian/copyright: copyright.py SITE-PACKAGES > debian/copyright

dist-info/METADATA of every bundled wheel -> one machine-readable stanza each; the licence texts themselves stay in
the wheels' dist-info folders, where the stanza points.
"""

from __future__ import annotations

import re
import sys
from email.parser import HeaderParser
from pathlib import Path

SITE = "usr/lib/flyball/lib/python3.11/site-packages"
TEXTS = re.compile(r"(licen[cs]e|copying|notice|authors)", re.IGNORECASE)
HEADER = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: flyball
Comment: The package bundles the Python wheels that follow, unchanged but for files left out
 (packaging/trim.txt in the source). Their full licence texts are installed beside them.

Files: *
Copyright: 2026 the Flyball authors
License: Apache-2.0
"""
FOOTER = """\
License: Apache-2.0
 On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.
"""


def licence(metadata: dict[str, list[str]]) -> str:
    """The short name, from the newest field that says it: expression, then classifiers, then the free text."""
    for expression in metadata.get("License-Expression", []):
        return expression
    names = [c.rsplit("::", 1)[1].strip() for c in metadata.get("Classifier", []) if c.startswith("License ::")]
    if names:
        return " and ".join(sorted(names))
    text = next((line.strip() for line in "".join(metadata.get("License", [])).splitlines() if line.strip()), "")
    if not text:
        raise SystemExit(f"{metadata['Name'][0]}: its METADATA names no licence; look it up before bundling it")
    return text


def stanza(info: Path) -> str:
    message = HeaderParser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    metadata: dict[str, list[str]] = {}
    for key, value in message.items():
        metadata.setdefault(key, []).append(value)
    name, version = metadata["Name"][0], metadata["Version"][0]
    holder = next(
        (v for k in ("Author", "Author-email", "Maintainer", "Maintainer-email") for v in metadata.get(k, [])), ""
    )
    texts = sorted(
        f"/{SITE}/{p.relative_to(info.parent)}" for p in info.rglob("*") if p.is_file() and TEXTS.search(p.name)
    )
    package = re.sub(r"[-_.]+", "_", name).lower()
    short = re.sub(r"[^A-Za-z0-9.+]+", "-", licence(metadata)).strip("-")
    lines = [
        f"Files: {SITE}/{info.name}/*",
        f"Copyright: {holder or 'the authors of ' + name}",
        f"License: {package}-{short}",
        f" {name} {version}: {licence(metadata)}.",
        *(f" {text}" for text in texts),
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise SystemExit("usage: copyright.py SITE-PACKAGES")
    bundled = sorted(i for i in Path(argv[1]).glob("*.dist-info") if not i.name.startswith("flyball-"))
    print("\n".join([HEADER, *map(stanza, bundled), FOOTER]), end="")


if __name__ == "__main__":
    main(sys.argv)
