"""Reads IRC logs: bytes in, a `Log` out. It never fails: a line that is nothing else is speech.

    [09:14] <nick> text                     said
    [14:39]  * nick text                    an action
    [01:26] -nick:#room- text               a notice
    === nick [user@host]  has joined #room  comes; `has left #room` goes
    === nick is now known as other          the same person from here on
    === other was kicked off #room by nick  goes
    === mode/#room [+o x]  by nick          a notice of `nick`
    === nick text                           an action, as older logs write it

Times are of day, to the minute, and wrap at midnight; lines without one have the time of the line
before. Logs lack most departures (who quits is not seen), so who joins while present, or takes the
nick of somebody present, shows that the former one had gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

from broker.replay.log import Happening, Joined, Left, Log, Renamed, Said

MINUTE_MS = 60_000
DAY_MINUTES = 24 * 60
BACKWARD_MINUTES_MAX = 60
"""A clock set back by up to this is no midnight: summer time ends, and clocks are corrected."""

_TIME = re.compile(r"\[(\d\d):(\d\d)\] ")
_SPEECH = re.compile(r"<([^>]*)>(?: (.*))?", re.DOTALL)
_ACTION = re.compile(r" ?\* (\S+)(?: (.*))?", re.DOTALL)
_NOTICE = re.compile(r"-(\S+?):#\S+?- ?(.*)", re.DOTALL)
_CAME_OR_WENT = re.compile(r"(.+?)\s+\[\S*@\S*\]\s+has (joined|left) #\S+")
_RENAMED = re.compile(r"(.+?) is now known as (\S.*)", re.DOTALL)
_KICKED = re.compile(r"(.+?) was kicked off #\S+ by ")
_MODE = re.compile(r"mode/#\S+ (\[.*\])\s+by (\S+)", re.DOTALL)
NOBODY = "(unknown)"
"""Who said a line that names nobody."""
_OLD_ACTION = re.compile(r"(\S+)(?: (.*))?", re.DOTALL)


def parse(name: str, data: bytes) -> Log:
    """The log in a file's bytes; bytes that are no UTF-8 become U+FFFD."""
    room = _Room()
    for at_minutes, line in _timed(data.decode("utf-8", "replace").split("\n")):
        room.at_ms = at_minutes * MINUTE_MS
        room.read(line)
    return Log(name, tuple(room.nicks), tuple(room.present_first), _spread(room.happenings))


def _timed(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, without their time, each with its minutes since the first."""
    first: int | None = None
    now = 0
    for raw in lines:
        line = raw.removesuffix("\r")
        if not line:
            continue
        if found := _TIME.match(line):
            of_day = int(found[1]) * 60 + int(found[2])
            first = of_day if first is None else first
            step = (of_day - (first + now)) % DAY_MINUTES
            if step < DAY_MINUTES - BACKWARD_MINUTES_MAX:
                now += step
            line = line[found.end() :]
        yield now, line


def _spread(happenings: list[Happening]) -> tuple[Happening, ...]:
    """What happened in one minute, spread evenly over it."""
    spread: list[Happening] = []
    for at_ms, group in groupby(happenings, key=lambda each: each.at_ms):
        minute = list(group)
        for index, each in enumerate(minute):
            spread.append(replace(each, at_ms=at_ms + index * MINUTE_MS // len(minute)))
    return tuple(spread)


class _Room:
    """Who is called what, and who is there, while a log is read."""

    def __init__(self) -> None:
        self.at_ms = 0
        self.nicks: list[str] = []
        self.present_first: list[int] = []
        self.happenings: list[Happening] = []
        self._called: dict[str, int] = {}
        self._present: set[int] = set()

    def read(self, line: str) -> None:
        """Take in a line without its time."""
        if line.startswith("=== "):
            self._event(line.removeprefix("=== "))
        elif found := _SPEECH.fullmatch(line):
            self._say(found[1], "text", found[2] or "")
        elif found := _ACTION.fullmatch(line):
            self._say(found[1], "custom", {"action": found[2] or ""})
        elif found := _NOTICE.fullmatch(line):
            self._say(found[1], "custom", {"notice": found[2]})
        else:
            self._say(NOBODY, "text", line)

    def _event(self, line: str) -> None:
        if found := _CAME_OR_WENT.match(line):
            (self._come if found[2] == "joined" else self._go)(found[1])
        elif found := _RENAMED.fullmatch(line):
            self._rename(found[1], found[2])
        elif found := _KICKED.match(line):
            self._go(found[1])
        elif found := _MODE.fullmatch(line):
            self._say(found[2], "custom", {"mode": found[1]})
        elif found := _OLD_ACTION.fullmatch(line):
            self._say(found[1], "custom", {"action": found[2] or ""})

    def _say(self, nick: str, kind: str, body: Any) -> None:
        self.happenings.append(Said(self.at_ms, self._someone_present(nick), kind, body))

    def _come(self, nick: str) -> None:
        person = self._called.get(nick.strip())
        if person is None:
            person = self._new(nick)
        elif person in self._present:
            self._leave(person)
        self._join(person)

    def _go(self, nick: str) -> None:
        self._leave(self._someone_present(nick))

    def _rename(self, old: str, new: str) -> None:
        person = self._someone_present(old)
        before = self._called.get(new.strip())
        if before == person:
            return
        if before is not None and before in self._present:
            self._leave(before)
        self._called.pop(old.strip(), None)
        self._called[new.strip()] = person
        self.happenings.append(Renamed(self.at_ms, person, new.strip()))

    def _someone_present(self, nick: str) -> int:
        """The person of that nick. Never seen before, they were there from the start; gone before,
        they have come back unseen."""
        person = self._called.get(nick.strip())
        if person is None:
            person = self._new(nick)
            self.present_first.append(person)
            self._present.add(person)
        elif person not in self._present:
            self._join(person)
        return person

    def _new(self, nick: str) -> int:
        self.nicks.append(nick.strip())
        self._called[nick.strip()] = len(self.nicks) - 1
        return len(self.nicks) - 1

    def _join(self, person: int) -> None:
        self._present.add(person)
        self.happenings.append(Joined(self.at_ms, person))

    def _leave(self, person: int) -> None:
        self._present.discard(person)
        self.happenings.append(Left(self.at_ms, person))
