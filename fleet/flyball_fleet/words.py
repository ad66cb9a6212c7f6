"""Words of a device as SQLite can store them.

text -> storable -> text, cut. Pure; what a terminal may show is tables.py's business.
"""

from __future__ import annotations


def storable(text: str, most: int) -> str:
    """At most `most` characters, and without halves of surrogate pairs, which have no UTF-8."""
    return text[:most].encode("utf-8", "replace").decode()
