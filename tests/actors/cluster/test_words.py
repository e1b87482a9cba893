"""Every word comes out as it went in; what cannot be read is told from what can."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from actors.cluster import words as w

EXAMPLES: list[w.AnyWord] = [
    w.Confirm(),
    w.Start([1, 2**53 - 1], [1]),
    w.Here([3], []),
    w.Gone([3], 1_700_000_000_000),
    w.Changed([3], True),
    w.Leave(),
    w.Suspect(),
    w.Tell([1, 2], {"t": "conv", "users": [1], "none": None}, 77, "g/1"),
    w.Join("g/1", 3, 12, [1, 2], [1, 9], True, False),
    w.Part("g/1", [2]),
    w.Close("g/1"),
    w.Batch("d/1/2", 5, [b"\x81\xa1a\x01", b""], [0, 3], [1, 2]),
    w.Event("d/1/2", {"t": "read", "seq": 5}, 9, True),
    w.Behind("d/1/2", 6),
    w.Ask(1, 1023, 2**52, 7, 2, b"\x80"),
    w.Answer(1, b'{"t":"ok"}'),
    w.Answer(1, b'{"t":"ok"}', "d/1/2", 5, 6),
    w.Moved(1),
    w.AskHeads(2, 1, ["d/1/2"]),
    w.Heads(2, [("d/1/2", 5, 1_700_000_000_000, 0)]),
    w.Slots([(0, "n1.ab", 1), (1023, "", 2)]),
]


def test_every_word_has_an_example() -> None:
    assert {type(word) for word in EXAMPLES} == set(get_args(w.AnyWord))


@pytest.mark.parametrize("word", EXAMPLES, ids=lambda word: type(word).__name__)
def test_a_word_comes_out_as_it_went_in(word: w.AnyWord) -> None:
    envelope = w.Envelope("in1", 2, 3, 4, 5, [word])
    assert w.decode(w.encode(envelope)) == envelope
    sealed = w.Sealed("in1", 2, 3, 4, 5, [msgspec.Raw(w.encode(word))])
    assert w.decode(w.encode(sealed)) == envelope, "encoded before, it is the same"


def test_many_words_keep_their_order() -> None:
    assert w.decode(w.encode(w.Envelope("in1", 1, 1, 0, 0, EXAMPLES))).words == EXAMPLES


@pytest.mark.parametrize("word", EXAMPLES, ids=lambda word: type(word).__name__)
def test_a_newer_node_may_say_more_in_a_word(word: w.AnyWord) -> None:
    fields: list[Any] = msgspec.msgpack.decode(w.encode(word))
    longer = w.encode(["in1", 1, 1, 0, 0, [[*fields, "and more"]]])
    assert w.decode(longer).words == [word]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        w.encode("in1"),
        w.encode(["in1", 1, 1, 0]),
        w.encode(["in1", 1, 1, 0, 0, [["sing", 1]]]),
        w.encode(["in1", 1, 1, 0, 0, [["part", "g/1"]]]),
        w.encode(["in1", 1, 1, 0, 0, [["part", "g/1", ["two"]]]]),
        w.encode(["in1", "one", 1, 0, 0, []]),
        w.encode(w.Envelope("in1", 1, 1, 0, 0, EXAMPLES))[:-1],
    ],
    ids=range(9),
)
def test_what_cannot_be_read_is_an_error_that_the_hearer_knows(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        w.decode(data)
