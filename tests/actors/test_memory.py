"""What a conversation remembers, against lists that forget nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.images import Drafts
from actors.memory import (
    BORROWED_ENTRIES,
    RECENT_ENTRIES,
    RECENT_MAX_BYTES,
    KeyWindow,
    Recent,
    count_unread,
    digest,
)
from broker.wire.errors import Code, Refusal
from broker.wire.limits import KEY_WINDOW_ENTRIES, UNREAD_WINDOW_ENTRIES
from storage.records import Entry, encode_entry


def test_the_newest_keys_are_known_however_many_came() -> None:
    keys = KeyWindow()
    count = 3 * KEY_WINDOW_ENTRIES + 7
    for seq in range(1, count + 1):
        keys.add(hash((1, f"k{seq}")), (seq, seq * 10, seq))
        assert keys.find(1, f"k{seq}", seq) == (seq, seq * 10)

    for seq in range(count - KEY_WINDOW_ENTRIES + 1, count + 1):
        assert keys.find(1, f"k{seq}", seq) == (seq, seq * 10)
    assert keys.find(1, "k1", 1) is None
    assert len(keys.young) + len(keys.old) <= 2 * KEY_WINDOW_ENTRIES


def test_a_key_belongs_to_its_sender_and_its_body() -> None:
    keys = KeyWindow()
    keys.recall(Entry(seq=4, sender=1, ts=9, kind="text", body="a", key="k"))

    assert keys.find(1, "k", digest("text", "a", 0, 0, None)) == (4, 9)
    assert keys.find(2, "k", digest("text", "a", 0, 0, None)) is None
    with pytest.raises(Refusal) as refused:
        keys.find(1, "k", digest("text", "b", 0, 0, None))
    assert (refused.value.code, refused.value.field) == (Code.CONFLICT, "key")


@pytest.mark.parametrize("changed", [{"edited_ts": 5}, {"recalled": True}])
def test_a_changed_entry_is_known_by_its_key_alone(changed: dict[str, int]) -> None:
    keys = KeyWindow()
    keys.recall(Entry(seq=4, sender=1, ts=9, kind="text", body="new", key="k", **changed))

    assert keys.find(1, "k", digest("text", "as it was sent", 0, 0, None)) == (4, 9)


Row = tuple[int, list[int] | None, int]
ROWS = st.tuples(
    st.sampled_from([0, 1, 2]), st.none() | st.just([1]) | st.just([2, 3]), st.integers(0, 40_000)
)


@given(
    turns=st.lists(st.lists(ROWS, min_size=1, max_size=90), max_size=12), start=st.integers(0, 9)
)
def test_the_newest_entries_are_those_of_the_log(turns: list[list[Row]], start: int) -> None:
    recent = Recent(start)
    log: list[tuple[bytes, int, list[int] | None]] = []
    for rows in turns:
        drafts = Drafts()
        for author, mentions, size in rows:
            payload = b"%d " % len(log) + bytes(size)
            drafts.add(payload, 0, author, author, mentions)
            log.append((payload, author, mentions))
        recent.extend(drafts)

    head = start + len(log)
    held = head - recent.first + 1
    assert held <= 2 * RECENT_ENTRIES
    assert sum(len(payload) for payload, _, _ in log[len(log) - held :]) <= 2 * RECENT_MAX_BYTES
    for seq in range(recent.first, head + 1):
        assert recent.payload(seq) == log[seq - start - 1][0]
    assert recent.between(recent.first - 1, head) == [row[0] for row in log[len(log) - held :]]
    assert recent.between(recent.first - 2, head) is None
    for read in range(start, head + 1, 7):
        after = log[read - start :]
        unread = sum(author not in (0, 1) for _, author, _ in after)
        mentions = sum(1 in (users or ()) for _, _, users in after)
        assert recent.unread(1, read) == (unread, mentions)


def test_unread_is_counted_over_a_window() -> None:
    recent = Recent(0)
    for _ in range(5):
        drafts = Drafts()
        for _ in range(UNREAD_WINDOW_ENTRIES // 2):
            drafts.add(b"", 0, 2, 2, [1])
        recent.extend(drafts)

    assert recent.unread(1, 0)[0] == UNREAD_WINDOW_ENTRIES


def test_a_recalled_entry_is_not_unread_and_not_as_it_was() -> None:
    recent = Recent(0)
    drafts = Drafts()
    for _ in range(3):
        drafts.add(b"before", 0, 2, 2, None)
    recent.extend(drafts)

    recent.revise(2, b"after")
    recent.forget_author(2)

    assert recent.payload(2) == b"after"
    assert recent.unread(1, 0) == (2, 0)


def test_older_entries_are_borrowed_for_a_while() -> None:
    recent = Recent(10_000)
    for seq in range(1, BORROWED_ENTRIES + 2):
        recent.borrow(seq, b"%d" % seq)

    assert recent.payload(1) is None
    assert recent.payload(2) == b"2"


def test_the_count_without_an_actor_is_the_same() -> None:
    log = [
        Entry(seq=1, sender=2, ts=1, kind="text", body="a", mentions=[1]),
        Entry(seq=2, sender=1, ts=1, kind="text", body="own"),
        Entry(seq=3, sender=2, ts=1, kind="react", body={"emoji": "x", "on": True}, ref=2),
        Entry(seq=4, sender=3, ts=1, kind="text", recalled=True),
    ]
    assert count_unread([encode_entry(entry) for entry in log], 1) == (1, 1)
