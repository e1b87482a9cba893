"""TLS on a non-blocking socket without a task: what the readiness loop and the outbox call.

`recv` and `send` look like a socket's. Handshake, renegotiation and records are the `ssl` module's
(`SSLObject` over two memory buffers); this file only moves bytes between those and the socket.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

RECEIVE_BYTES = 64 * 1024


class TlsSocket:
    """`send` returns how many bytes were taken, or -1: all taken, but the socket is full now.

    Until it is `shaken` (the handshake is over) nothing can be sent, however writable the socket.
    """

    __slots__ = ("_incoming", "_object", "_outgoing", "_socket", "_unsent", "shaken")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._socket = sock
        self._unsent = b""
        self.shaken = False

    def recv(self, size: int) -> bytes:
        """Plain bytes; b"" at the end of the stream; `BlockingIOError` if there are none yet.

        Returns all that can be decrypted now, so that readiness of the socket alone says when to
        call again: it may be more than `size`, by at most what one receive brought.
        """
        data = self._socket.recv(RECEIVE_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        try:
            if not self.shaken:
                self._object.do_handshake()
                self.shaken = True
            return self._decrypted()
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            return b""
        finally:
            self._pass_on()

    def _decrypted(self) -> bytes:
        parts: list[bytes] = []
        while True:
            try:
                part = self._object.read(RECEIVE_BYTES)
            except ssl.SSLWantReadError:
                if parts:
                    break
                raise
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            if not part:
                break
            parts.append(part)
        return b"".join(parts)

    def send(self, data: bytes) -> int:
        if self._unsent or self._outgoing.pending:
            self._pass_on()
            if self._unsent:
                raise BlockingIOError
        if data:
            try:
                self._object.write(data)
            except ssl.SSLWantReadError:
                raise BlockingIOError from None
        self._pass_on()
        return -1 if self._unsent else len(data)

    def close_notify(self) -> None:
        """Tell the peer in TLS that nothing more comes; best effort."""
        with contextlib.suppress(OSError):
            self._object.unwrap()
        with contextlib.suppress(OSError):
            self._pass_on()

    def _pass_on(self) -> None:
        data = self._unsent + self._outgoing.read()
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                break
        self._unsent = data
