"""Chunks: runs of payloads as one msgpack array, cut to a bounded size. Pure functions.

The array is made and taken apart without decoding any payload.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

CHUNK_MAX_ENTRIES = 256
CHUNK_MAX_BYTES = 256 * 1024
"""What reading a single entry may cost at worst; one payload may still be longer."""

_HEADERS = [msgspec.msgpack.encode([None] * n)[:-n] for n in range(1, CHUNK_MAX_ENTRIES + 1)]
_decode = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def pack(payloads: Sequence[bytes]) -> bytes:
    """1 to `CHUNK_MAX_ENTRIES` payloads as one msgpack array."""
    return _HEADERS[len(payloads) - 1] + b"".join(payloads)


def unpack(data: bytes) -> list[bytes]:
    """The payloads of a chunk."""
    return [bytes(raw) for raw in _decode(data)]


def split(first: int, payloads: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Cut payloads, of which the first has seq `first`, into chunks: (first, last, data) each."""
    start = size = 0
    for index, payload in enumerate(payloads):
        full = index - start == CHUNK_MAX_ENTRIES or size + len(payload) > CHUNK_MAX_BYTES
        if full and index > start:
            yield first + start, first + index - 1, pack(payloads[start:index])
            start, size = index, 0
        size += len(payload)
    yield first + start, first + len(payloads) - 1, pack(payloads[start:])
