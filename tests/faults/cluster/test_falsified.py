"""The checker over a true story, in which then one thing is made untrue: each is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from broker.wire.limits import KEY_WINDOW_ENTRIES
from tests.histories.checker import Truth, check
from tests.histories.record import DeviceRecord, Intent, Record, Seen

CONV = "d/1/2"
COUNT = 5


def stored(seq: int, **changes: Any) -> bytes:
    entry = {"seq": seq, "from": 1, "ts": 1_000 + seq, "kind": "text", "body": f"says {seq}"}
    packed: bytes = msgpack.packb({**entry, "key": f"k{seq}", **changes})
    return packed


def true_story() -> tuple[Record, Truth]:
    """User 1 says five things; user 2 hears them."""
    record = Record()
    for seq in range(1, COUNT + 1):
        fields = {"body": f"says {seq}"}
        record.intents.append(Intent(1, "send", CONV, f"k{seq}", fields, seq=seq))
    for user in (1, 2):
        seen = [Seen(seq, 1, "text", f"says {seq}", True) for seq in range(1, COUNT + 1)]
        record.devices.append(
            DeviceRecord(
                f"u{user}", user, {CONV: seen}, {CONV: COUNT}, connected=True, presence={1: True}
            )
        )
    log = [stored(seq) for seq in range(1, COUNT + 1)]
    return record, Truth(logs={CONV: log}, members={CONV: [1, 2]}, online={1, 2})


def with_log(truth: Truth, log: list[bytes]) -> Truth:
    return replace(truth, logs={CONV: log})


def lose_the_last(record: Record, truth: Truth) -> Truth:
    return with_log(truth, list(truth.logs[CONV][:-1]))


def lose_one_between(record: Record, truth: Truth) -> Truth:
    log = truth.logs[CONV]
    return with_log(truth, [*log[:2], *log[3:]])


def store_a_key_twice(record: Record, truth: Truth) -> Truth:
    return with_log(truth, [*truth.logs[CONV], stored(COUNT + 1, key="k1")])


def exchange_two(record: Record, truth: Truth) -> Truth:
    log = list(truth.logs[CONV])
    log[1], log[2] = stored(2, body="says 3", key="k3"), stored(3, body="says 2", key="k2")
    return with_log(truth, log)


def change_a_body(record: Record, truth: Truth) -> Truth:
    log = list(truth.logs[CONV])
    log[3] = stored(4, body="says nothing")
    return with_log(truth, log)


def let_time_go_back(record: Record, truth: Truth) -> Truth:
    return with_log(truth, [*truth.logs[CONV][:-1], stored(COUNT, ts=1)])


def leave_one_unanswered(record: Record, truth: Truth) -> Truth:
    record.intents.append(Intent(1, "send", CONV, "k9", {"body": "hello?"}))
    return truth


def store_what_was_refused(record: Record, truth: Truth) -> Truth:
    intent = record.intents[0]
    intent.seq, intent.refused = 0, "forbidden"
    return truth


def tell_a_reader_too_little(record: Record, truth: Truth) -> Truth:
    reader = record.devices[1]
    reader.logs[CONV].pop()
    reader.cursors[CONV] -= 1
    return truth


def show_what_never_was(record: Record, truth: Truth) -> Truth:
    record.devices[1].logs[CONV].append(Seen(COUNT + 1, 1, "text", "a ghost", True))
    return truth


def show_the_dead_as_living(record: Record, truth: Truth) -> Truth:
    return replace(truth, online={2})


UNTRUE = [
    lose_the_last,
    lose_one_between,
    store_a_key_twice,
    exchange_two,
    change_a_body,
    let_time_go_back,
    leave_one_unanswered,
    store_what_was_refused,
    tell_a_reader_too_little,
    show_what_never_was,
    show_the_dead_as_living,
]


async def test_a_true_story_is_believed() -> None:
    assert check(*true_story()) == []


@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("entries", [KEY_WINDOW_ENTRIES, KEY_WINDOW_ENTRIES + 1])
async def test_who_looks_into_the_log_first_never_says_anything_twice(
    patient: bool, entries: int
) -> None:
    """And who does not, not while its key is remembered."""
    record, truth = true_story()
    record.intents[0].patient = patient
    record.devices.clear()
    between = [stored(seq) for seq in range(COUNT + 1, entries + 1)]
    truth = with_log(truth, [*truth.logs[CONV], *between, stored(entries + 1, key="k1")])

    wrong = check(record, truth)

    if patient or entries <= KEY_WINDOW_ENTRIES:
        assert wrong == [f"{CONV}: the key (1, 'k1') is stored twice, as 1 and as {entries + 1}"]
    else:
        assert wrong == []


@pytest.mark.parametrize("falsify", UNTRUE)
async def test_one_untruth_is_found_out(falsify: Callable[[Record, Truth], Truth]) -> None:
    record, truth = true_story()
    assert check(record, falsify(record, truth))
