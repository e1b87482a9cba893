"""The commands of one client and what becomes of them, over many connections. No I/O, no clock.

    DOWN --opening()--> OPENING --opened()--> OPEN
      ^------------------lost()------------------'         any --end(error)--> CLOSED

A call lives from `call` until it has an outcome. What is on its way when a connection is lost is
sent again on the next one, in the order of the calls, if it is safe to repeat; if not, its outcome
is `Disconnected`. What was never sent is safe in any case.

A broker remembers keys for a while only. So a keyed call that may have been done on an earlier
connection, or long ago, is doubtful: it is held, with all later ones of its conversation, until
`doubts` has looked for it in the log and says `found` or `release`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from broker.client.codec import Frame, pack
from broker.client.errors import (
    ClientClosed,
    CommandError,
    Disconnected,
    NotLoggedIn,
    ParleyClientError,
)
from broker.client.limits import RESEND_WITHIN_ENTRIES
from broker.client.model import Message
from broker.client.wakeup import Wakeup
from broker.wire.errors import Code
from broker.wire.limits import Limits

SAFE_TO_REPEAT = frozenset(
    {
        *("history", "message", "sync", "search", "conversations", "conversation.set", "unread"),
        *("read", "delivered", "ping"),
        *("group.get", "group.find", "group.mine", "group.members", "group.requests"),
        *("user.get", "user.find", "profile.get", "profile.set", "friend.list", "blocked"),
        *("presence.watch", "presence.unwatch", "presence.get"),
    }
)
"""Commands that change nothing, or for which twice is the same as once. Keyed ones are, too."""


class State(Enum):
    """Where the session stands."""

    DOWN = "no connection"
    OPENING = "connected, not yet welcome"
    OPEN = "commands may be sent"
    CLOSED = "over for good"


@dataclass(slots=True, eq=False)
class Call:
    """One command on its way. `outcome` is the answer's map, or the error to raise."""

    id: int
    name: str
    data: bytes
    safe: bool
    wake: Callable[[], None]
    key: str | None = None
    conv: str | None = None
    """Where its entry is to be found by its key; None for what makes none."""
    floor: int = -1
    """Up to this seq there is no entry of it; -1 until it is sent."""
    link: int = 0
    """On which connection, counted from 1, it was last sent; 0: no doubt is open."""
    sent: bool = False
    outcome: Frame | ParleyClientError | None = None

    def finish(self, outcome: Frame | ParleyClientError) -> None:
        """Settle the call and wake the one who waits for it."""
        self.outcome = outcome
        self.wake()


class Session:
    """All commands of one client: who waits, what is to be sent, what to repeat.

    `reached` gives the newest seq of a conversation that is known to exist, 0 if none is.
    """

    def __init__(self, reached: Callable[[str], int]) -> None:
        self.state = State.DOWN
        self.user = 0
        self.holding = Wakeup()
        """Given when `next_held` has something to give."""
        self.limits = Limits()
        self.error: ParleyClientError = ClientClosed("the client is closed")
        self.complaint: CommandError | None = None
        """The last error that answered no call; it explains the goodbye that follows."""
        self._calls: dict[int, Call] = {}
        self._queue: deque[Call | bytes] = deque()
        self._last_id = 0
        self._reached = reached
        self._links = 0
        self._held: dict[str, bool] = {}
        """Conversations whose keyed calls wait, and whether somebody looks into their log."""

    @property
    def waiting(self) -> int:
        """Calls without an outcome."""
        return len(self._calls)

    @property
    def has_output(self) -> bool:
        """Whether `take` has something to give."""
        return bool(self._queue)

    def call(self, name: str, fields: dict[str, Any], wake: Callable[[], None]) -> Call:
        """Begin a command. Raises `CommandError` (`too_large`), or why the session is over."""
        call = self._new_call(name, fields, wake)
        self.again(call)
        return call

    def again(self, call: Call) -> None:
        """Send a call (once more). Raises why the session is over."""
        if self.state is State.CLOSED:
            raise self.error
        call.sent, call.outcome = False, None
        self._calls[call.id] = call
        if self.state is State.OPEN:
            self._submit(call)

    def forget(self, call: Call) -> None:
        """Nobody waits for this call any more; an answer to it is ignored."""
        self._calls.pop(call.id, None)

    def ping(self) -> None:
        """Send a sign of life; its answer is ignored."""
        self._last_id += 1
        self._queue.append(pack({"t": "ping", "id": self._last_id}))

    def opening(self, token: str, device: str | None, wake: Callable[[], None]) -> Call:
        """A new connection is there: greet. Calls wait until `opened`."""
        assert self.state is State.DOWN
        fields = {"token": token} if device is None else {"token": token, "device": device}
        hello = self._new_call("hello", fields, wake)
        hello.safe = False
        self.state = State.OPENING
        self.complaint = None
        self._calls[hello.id] = hello
        self._queue.append(hello)
        return hello

    def opened(self, welcome: Frame) -> None:
        """The broker knows us: note its limits, and send all that waits, in order, if it may."""
        assert self.state is State.OPENING
        self.state = State.OPEN
        self._links += 1
        if isinstance(welcome.get("user"), int):
            self.user = welcome["user"]
        limits = welcome.get("limits")
        if isinstance(limits, dict) and isinstance(limits.get("frame_bytes"), int):
            self.limits = Limits(frame_bytes=limits["frame_bytes"])
        for call in self._calls.values():
            self._submit(call)

    def take(self, limit: int) -> list[bytes]:
        """The frames to write now, at most `limit`; they count as sent."""
        frames: list[bytes] = []
        while self._queue and len(frames) < limit:
            item = self._queue.popleft()
            if isinstance(item, bytes):
                frames.append(item)
            elif item.id in self._calls and not item.sent:
                item.sent, item.link = True, self._links
                if item.conv is not None and item.floor < 0:
                    item.floor = self._reached(item.conv)
                frames.append(item.data)
        return frames

    def reply(self, frame: Frame) -> None:
        """An `ok` or `error` came in: settle the call that it answers."""
        number = frame.get("id")
        call = self._calls.pop(number, None) if isinstance(number, int) else None
        outcome = outcome_of(frame)
        if call is not None:
            call.finish(outcome)
        elif isinstance(outcome, CommandError):
            self.complaint = outcome

    def lost(self) -> None:
        """The connection is gone: keep what may be sent again, fail the rest."""
        if self.state is State.CLOSED:
            return
        self.state = State.DOWN
        self._queue.clear()
        self._held.clear()
        for call in list(self._calls.values()):
            if call.sent and not call.safe:
                del self._calls[call.id]
                call.finish(Disconnected(f"the connection broke while {call.name} was on its way"))
            call.sent = False

    def end(self, error: ParleyClientError) -> None:
        """No connection will come again: every call ends in `error`, now and later."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.error = error
        self._queue.clear()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.finish(error)

    # What may be in the log already

    def next_held(self) -> str | None:
        """A conversation into whose log somebody must look. It is given out once; the look ends
        with `release`."""
        conv = next((conv for conv, taken in self._held.items() if not taken), None)
        if conv is not None:
            self._held[conv] = True
        return conv

    def doubts(self, conv: str) -> list[Call]:
        """The waiting calls that may have an entry in the log of `conv`."""
        return [call for call in self._calls.values() if call.conv == conv and self._doubtful(call)]

    def found(self, call: Call, entry: Message) -> None:
        """The entry of a doubtful call is in the log: that is its answer."""
        if self._calls.pop(call.id, None) is not None:
            call.finish({"t": "ok", "conv": entry.conv, "seq": entry.seq, "ts": entry.ts})

    def not_found(self, call: Call, upto: int) -> None:
        """A doubtful call has no entry with a seq up to `upto`, and after that only where the
        broker still knows its key: it may be sent."""
        call.floor, call.link = max(call.floor, upto), 0

    def release(self, conv: str) -> None:
        """Nothing of `conv` is doubtful any more: send what waited, in order."""
        del self._held[conv]
        self._queue.extend(call for call in self._calls.values() if call.conv == conv)

    def _submit(self, call: Call) -> None:
        if call.conv is not None and self._doubtful(call):
            self._held.setdefault(call.conv, False)
            self.holding.set()
        if call.conv not in self._held:
            self._queue.append(call)

    def _doubtful(self, call: Call) -> bool:
        if call.conv is None or not call.link or call.sent:
            return False
        long_ago = self._reached(call.conv) - call.floor > RESEND_WITHIN_ENTRIES
        return call.link < self._links or long_ago

    def _new_call(self, name: str, fields: dict[str, Any], wake: Callable[[], None]) -> Call:
        self._last_id += 1
        given = {field: value for field, value in fields.items() if value is not None}
        data = pack({**given, "t": name, "id": self._last_id})
        if len(data) > self.limits.frame_bytes:
            raise CommandError(
                Code.TOO_LARGE,
                f"the command takes {len(data)} bytes, {self.limits.frame_bytes} are allowed",
            )
        safe = name in SAFE_TO_REPEAT or "key" in given
        call = Call(self._last_id, name, data, safe, wake, key=given.get("key"))
        if call.key is not None:
            call.conv = self._conversation(given)
        return call

    def _conversation(self, fields: dict[str, Any]) -> str | None:
        """Which conversation a command is for; None if it names none as it should."""
        match fields:
            case {"conv": str(conv)}:
                return conv
            case {"to": {"user": int(user)}}:
                return f"d/{min(user, self.user)}/{max(user, self.user)}"
        return None


def outcome_of(frame: Frame) -> Frame | ParleyClientError:
    """What an `ok` or `error` frame means to the one who asked."""
    if frame.get("t") == "ok":
        return frame
    code, text = str(frame.get("code", Code.INTERNAL)), str(frame.get("message", ""))
    if code == Code.UNAUTHENTICATED:
        return NotLoggedIn(text or "the session is not good: log in again")
    return CommandError(
        code,
        text,
        field=frame.get("field"),
        after_ms=frame.get("after_ms"),
        retry=bool(frame.get("retry")),
    )
