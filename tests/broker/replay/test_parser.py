"""What the lines of a log mean, odd ones included."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.replay.log import Happening, Joined, Left, Log, Renamed, Said
from broker.replay.parser import DAY_MINUTES, MINUTE_MS, parse


def log(*lines: str | bytes) -> Log:
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return parse("test", b"\n".join(raw) + b"\n")


def who_did_what(log: Log) -> list[tuple[str, str, Any]]:
    """The happenings with first nicks for numbers, and without times."""

    def told(each: Happening) -> tuple[str, str, Any]:
        nick = log.nicks[each.person]
        match each:
            case Said():
                return nick, "said", each.body
            case Renamed():
                return nick, "renamed", each.nick
            case _:
                return nick, type(each).__name__.lower(), None

    return [told(each) for each in log.happenings]


JOIN = "=== {} [~u@host.example]  has joined #room"
LEAVE = '=== {} [~u@host.example]  has left #room ["bye"]'


@pytest.mark.parametrize(
    ("line", "nick", "body"),
    [
        ("[09:14] <ann> hi <there>", "ann", "hi <there>"),
        ("[09:14] <ann> ", "ann", ""),
        ("[09:14] <ann>", "ann", ""),
        ("[09:14] <ann>  two spaces ", "ann", " two spaces "),
        ("[09:14] <Guard] [an> re", "Guard] [an", "re"),
        ("[09:14] <Alex[x] > hey", "Alex[x]", "hey"),
        ("[09:14]  * ann waves", "ann", {"action": "waves"}),
        ("[09:14]  * ann", "ann", {"action": ""}),
        ("[09:14] -bot:#room- buy this", "bot", {"notice": "buy this"}),
        ("=== ann waves", "ann", {"action": "waves"}),
        ("=== ann has joined the army", "ann", {"action": "has joined the army"}),
        ("=== mode/#room [+o ann]  by bob", "bob", {"mode": "[+o ann]"}),
        ("[09:14] <ann> a\u2028b\x0bc\x85d", "ann", "a\u2028b\x0bc\x85d"),
    ],
)
def test_speech_in_all_its_forms(line: str, nick: str, body: Any) -> None:
    read = log(line)
    assert who_did_what(read) == [(nick, "said", body)]
    assert read.present == (0,)


def test_bytes_that_are_no_text_are_replaced_and_line_ends_may_be_of_any_kind() -> None:
    assert who_did_what(log(b"[09:14] <a> \xff\xfe!\r", b"", b"[09:14] <a> x")) == [
        ("a", "said", "\ufffd\ufffd!"),
        ("a", "said", "x"),
    ]


def test_line_of_no_known_form_is_said_by_nobody_known() -> None:
    assert who_did_what(log("whatever")) == [("(unknown)", "said", "whatever")]


def test_who_speaks_without_having_come_was_there_from_the_start() -> None:
    read = log("[09:14] <ann> hi", JOIN.format("bob"), "[09:15] <bob> hi", "[09:16] <cy> hi")
    assert [read.nicks[person] for person in read.present] == ["ann", "cy"]
    assert who_did_what(read)[1] == ("bob", "joined", None)


@pytest.mark.parametrize("nick", ["Guard] [an", "[A] ndy", "Alex[x]", "`q", "|x|", "Alex[x] "])
def test_odd_nicks_come_and_go(nick: str) -> None:
    lines = [line.format(nick) for line in (JOIN, LEAVE)]
    assert who_did_what(log(*lines)) == [
        (nick.strip(), "joined", None),
        (nick.strip(), "left", None),
    ]


def test_rename_is_the_same_person_and_frees_the_old_nick() -> None:
    read = log(
        "[09:14] <a> one",
        "=== a is now known as b",
        "[09:14] <b> two",
        JOIN.format("a"),
        "[09:14] <a> three",
    )
    assert read.nicks == ("a", "a")
    assert [(type(each), each.person) for each in read.happenings] == [
        (Said, 0),
        (Renamed, 0),
        (Said, 0),
        (Joined, 1),
        (Said, 1),
    ]


def test_nick_taken_from_somebody_present_shows_that_they_had_gone() -> None:
    read = log("[09:14] <a> hi", JOIN.format("a_"), "=== a_ is now known as a", "[09:15] <a> back")
    assert who_did_what(read) == [
        ("a", "said", "hi"),
        ("a_", "joined", None),
        ("a", "left", None),
        ("a_", "renamed", "a"),
        ("a_", "said", "back"),
    ]


def test_coming_twice_has_a_going_between() -> None:
    kinds = [what for _, what, _ in who_did_what(log(JOIN.format("a"), JOIN.format("a")))]
    assert kinds == ["joined", "left", "joined"]


def test_who_speaks_after_leaving_has_come_back() -> None:
    lines = [JOIN.format("a"), LEAVE.format("a"), "[09:15] <a> still here"]
    kinds = [what for _, what, _ in who_did_what(log(*lines))]
    assert kinds == ["joined", "left", "joined", "said"]


def test_kicked_is_gone() -> None:
    read = log("[09:14] <a> !", "=== a was kicked off #room by b (noise)")
    assert who_did_what(read)[1:] == [("a", "left", None)]


def test_times_wrap_at_midnight_but_not_when_a_clock_is_set_back() -> None:
    read = log(*(f"[{time}] <a> x" for time in ("23:59", "00:01", "00:00", "01:00", "00:30")))
    minutes = [each.at_ms // MINUTE_MS for each in read.happenings]
    assert minutes == [0, 2, 2, 61, 61]
    read = log(*(f"[{time}] <a> x" for time in ("10:00", "08:00", "08:00")))
    assert read.happenings[1].at_ms == (DAY_MINUTES - 120) * MINUTE_MS


def test_what_happens_in_a_minute_is_spread_over_it() -> None:
    read = log(*["[09:14] <a> x"] * 4, "[09:15] <a> y")
    assert [each.at_ms for each in read.happenings] == [0, 15_000, 30_000, 45_000, 60_000]


pieces = st.sampled_from(
    [
        *("=== ", "[09:14] ", "[23:59] ", "<a> ", "<b", "> ", " * a ", "a", "b", " ", "[x@h] "),
        *(" has joined #r", " has left #r", " is now known as ", "-a:#r- ", "mode/#r"),
        *("\n", "\r", "é"),
    ]
)


@given(st.lists(pieces, max_size=60).map("".join) | st.binary().map(lambda b: b.decode("latin-1")))
def test_any_log_is_a_possible_life_of_a_room(text: str) -> None:
    read = parse("any", text.encode())
    there = set(read.present)
    last = 0
    for each in read.happenings:
        assert each.at_ms >= last
        last = each.at_ms
        if isinstance(each, Joined):
            assert each.person not in there
            there.add(each.person)
        else:
            assert each.person in there
            if isinstance(each, Left):
                there.remove(each.person)
