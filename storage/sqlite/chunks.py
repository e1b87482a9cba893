"""Chunks: runs of payloads, one after the other, cut to a bounded size. Pure functions.

Put behind an array's header a chunk is a msgpack array, so it is taken apart without decoding any
payload, and two chunks are joined by joining their bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

CHUNK_MAX_ENTRIES = 256
CHUNK_MAX_BYTES = 256 * 1024
"""What reading a single entry may cost at worst (twice the entries in a merged chunk). One payload
may still be longer."""

_decode = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def unpack(count: int, data: bytes) -> list[bytes]:
    """The `count` payloads of a chunk."""
    return [bytes(raw) for raw in _decode(b"\xdd" + count.to_bytes(4, "big") + data)]


def split(first: int, payloads: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Cut payloads, of which the first has seq `first`, into chunks: (first, last, data) each."""
    start = size = 0
    for index, payload in enumerate(payloads):
        full = index - start == CHUNK_MAX_ENTRIES or size + len(payload) > CHUNK_MAX_BYTES
        if full and index > start:
            yield first + start, first + index - 1, b"".join(payloads[start:index])
            start, size = index, 0
        size += len(payload)
    yield first + start, first + len(payloads) - 1, b"".join(payloads[start:])
