"""Topic aliases: short numbers for topics that are published again and again.

topic -> (topic or "", alias or None), as a PUBLISH has them

A topic gets its number with its second publication, so that those which come once (command states) push nothing out;
when all are taken, the one unused for longest changes hands, which MQTT 5 (3.3.2.3.4) does by naming the topic anew.
Of one connection only: aliases do not outlive it. Pure.
"""

from __future__ import annotations

from collections import OrderedDict

MOST = 16  # more distinct topics than a device has at a time
REMEMBERED = 64  # topics that were published once


class Aliases:
    def __init__(self, offered: int) -> None:
        self._most = min(offered, MOST)
        self._numbers: OrderedDict[str, int] = OrderedDict()  # the one unused for longest first
        self._once: OrderedDict[str, None] = OrderedDict()

    def shorten(self, topic: str) -> tuple[str, int | None]:
        if topic in self._numbers:
            self._numbers.move_to_end(topic)
            return "", self._numbers[topic]
        if not self._most:
            return topic, None
        if topic not in self._once:
            self._once[topic] = None
            if len(self._once) > REMEMBERED:
                self._once.popitem(last=False)
            return topic, None
        del self._once[topic]
        if len(self._numbers) < self._most:
            number = len(self._numbers) + 1
        else:
            _, number = self._numbers.popitem(last=False)
        self._numbers[topic] = number
        return topic, number
