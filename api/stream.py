"""The socket of an HTTP request, as a stream that first gives back the bytes already read.

Plain or TLS, it is the same `recv` and `send` that the readiness loop used before. The socket
itself stays its connection's, which closes it; here it is only shut down. Every write is bounded in
time.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import trio

from actors.connection import HttpHandover

SEND_TIMEOUT_S = 20.0
"""For one piece of a response; Hypercorn shields its writes, so nobody else could end one."""
LINGER_TIMEOUT_S = 1.0
LINGER_MAX_BYTES = 256 * 1024
"""How much of what a client still sends is read after the response, so that it gets to see it."""
RECEIVE_BYTES = 64 * 1024


class HandedOver:
    """What Hypercorn uses of a `trio.SocketStream`: these methods and `socket`."""

    def __init__(self, handover: HttpHandover) -> None:
        self.socket = handover.socket
        self._tls = handover.tls
        self._carrier: Any = handover.tls if handover.tls is not None else handover.socket
        self._first = handover.data
        self._ended = False
        self._closed = False

    async def receive_some(self, max_bytes: int) -> bytes:
        """Bytes (over TLS it may be more than `max_bytes`); b"" at the end of the stream.

        Raises `trio.ClosedResourceError` once it is closed and `trio.BrokenResourceError`.
        """
        if self._first:
            data, self._first = self._first, b""
            await trio.lowlevel.checkpoint()
            return data
        while True:
            self._check_open()
            await trio.lowlevel.wait_readable(self.socket)
            try:
                return self._carrier.recv(max_bytes)  # type: ignore[no-any-return]
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes) -> None:
        """Write everything. Raises as `receive_some` does, and when the client does not read."""
        self._check_open()
        try:
            with trio.fail_after(SEND_TIMEOUT_S):
                await self._send_all(data)
        except (OSError, trio.TooSlowError) as error:
            raise trio.BrokenResourceError from error

    async def _send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while True:
            try:
                sent = self._carrier.send(data)
            except BlockingIOError:
                sent = 0
            else:
                if sent == len(data):
                    return
            # TLS has taken all of it, but has not written all: what is left is to push.
            data = b"" if sent < 0 else data[sent:]
            await trio.lowlevel.wait_writable(self.socket)

    async def send_eof(self) -> None:
        """Say that the response is over."""
        self._check_open()
        if not self._ended:
            self._ended = True
            if self._tls is not None:
                self._tls.close_notify()
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Shut it down. Closing with bytes unread would take the response from the client."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        trio.lowlevel.notify_closing(self.socket)
        try:
            await self._linger()
        finally:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    async def _linger(self) -> None:
        left = LINGER_MAX_BYTES
        with trio.move_on_after(LINGER_TIMEOUT_S), contextlib.suppress(OSError):
            if not self._ended:
                self.socket.shutdown(socket.SHUT_WR)
            while left > 0:
                await trio.lowlevel.wait_readable(self.socket)
                # Below TLS: whatever it is, nobody will read it.
                data = self.socket.recv(RECEIVE_BYTES)
                if not data:
                    return
                left -= len(data)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
