"""Cutting and joining payloads loses nothing and keeps to the bounds."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from storage.sqlite.chunks import CHUNK_MAX_BYTES, CHUNK_MAX_ENTRIES, split, unpack

values = st.recursive(
    st.none() | st.integers(-(2**31), 2**53) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
small = st.dictionaries(st.text(), values, max_size=3).map(msgspec.msgpack.encode)
large = st.integers(1, 3 * CHUNK_MAX_BYTES // 2).map(lambda n: msgspec.msgpack.encode("x" * n))


@given(st.integers(1, 10**9), st.lists(small | large, min_size=1, max_size=12))
def test_what_was_split_comes_back_in_bounded_pieces(first: int, payloads: list[bytes]) -> None:
    seq, found = first, []
    for low, high, data in split(first, payloads):
        assert low == seq
        part = unpack(high + 1 - low, data)
        assert len(part) == high + 1 - low
        assert len(data) <= CHUNK_MAX_BYTES or len(part) == 1
        found += part
        seq = high + 1
    assert found == payloads


@given(st.integers(1, 3 * CHUNK_MAX_ENTRIES + 2))
def test_no_piece_has_too_many_entries(count: int) -> None:
    pieces = list(split(1, [b"\x01"] * count))
    assert all(high - low < CHUNK_MAX_ENTRIES for low, high, _ in pieces)
    assert sum(high + 1 - low for low, high, _ in pieces) == count
    assert len(pieces) == -(-count // CHUNK_MAX_ENTRIES)


@given(st.lists(small, min_size=2, max_size=9), st.data())
def test_joined_chunks_are_the_chunk_of_both(payloads: list[bytes], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(payloads) - 1))
    ((_, _, left),) = split(1, payloads[:cut])
    ((_, _, right),) = split(cut + 1, payloads[cut:])
    assert unpack(len(payloads), left + right) == payloads
