"""A client that keeps the protocol's rules by the letter: cursors, sync, `behind`, pulling.

Code of its own, so that the broker and its own client cannot share a mistake. It takes an entry
into its copy of a log only if it is the next one; what is neither known nor next is a violation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import trio

from tests.helpers.peer import Carrier, Ended
from tests.histories.line import REPLY_S, Line, Lost
from tests.histories.membership import begins_for, ends_for
from tests.histories.record import DeviceRecord, Intent, Map, Record, Seen

Dial = Callable[[], Awaitable[Carrier]]
"""Connect to one node. Raises `OSError` or `Ended` where that cannot be."""

HISTORY_LIMIT = 40
SYNC_LIMIT = 3
DIAL_S = 5.0
"""For a connection, its hello included."""
LOOK_S = 0.25
"""How often what is due is looked for."""


@dataclass
class Pull:
    """A conversation that is being caught up with; what comes live meanwhile waits."""

    waiting: list[Map] = field(default_factory=list)
    again: bool = False


class Client:
    """`doors` are the nodes; it goes from one to another as it must.

    What may be in the log already is looked for there before it is said again, if the client is
    `patient`. If not, it is said again at once, and may be there twice once its key is forgotten.
    """

    def __init__(
        self,
        record: Record,
        rng: Random,
        doors: list[Dial],
        *,
        user: int,
        name: str,
        token: str,
        watch: list[int],
        patient: bool,
    ) -> None:
        self.saw = DeviceRecord(name, user)
        record.devices.append(self.saw)
        self.record = record
        self.rng = rng
        self.user = user
        self.name = name
        self.intents: dict[str, Intent] = {}
        self.line: Line | None = None
        self.offline_until = 0.0
        self.deaf_until = 0.0
        """It reads nothing before that."""
        self._doors = doors
        self._token = token
        self._watch = watch
        self._patient = patient
        self._own: dict[str, int] = {}
        """Own entries that it took, by their keys."""
        self._pulls: dict[str, Pull] = {}
        self._early: list[Map] | None = []
        self._listed: set[str] = set()
        """Conversations that this connection was caught up with."""
        self._owed: set[str] = set()
        """Conversations with a hole that is right only if the client is out."""
        self._due: dict[str, float] = {}
        self._pulls_due: dict[str, float] = {}
        self._bye_at = 0.0
        self._sync_next: str | None = None
        self._sync_due = self._watch_due = float("inf")

    # Life

    async def run(self) -> None:
        """Connect, and again, for ever."""
        while True:
            wait = max(self.offline_until, self._bye_at) - trio.current_time()
            await trio.sleep(max(wait, 0.0) + self.rng.uniform(0.01, 0.5))
            carrier = await self._dial()
            if carrier is None:
                continue
            try:
                await self._stay(carrier)
            finally:
                self._part()
                with trio.CancelScope(shield=True):
                    await carrier.aclose()

    async def _dial(self) -> Carrier | None:
        with trio.move_on_after(DIAL_S):
            try:
                return await self.rng.choice(self._doors)()
            except (OSError, Ended):
                self.record.count("dial refused")
        return None

    async def _stay(self, carrier: Carrier) -> None:
        self.line = line = Line(carrier, self.record, self.name)
        self._early = []
        self._pulls = {}
        self._due = {intent.key: 0.0 for intent in self.intents.values()}
        self._pulls_due = {}
        self._listed = set()
        self._owed = set()
        self._bye_at = 0.0
        self.saw.presence = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, line, nursery.cancel_scope)
            try:
                await self._open(line)
                while True:
                    await self._do_what_is_due(line)
                    line.check_patience()
                    self.saw.unanswered = line.unanswered
                    self.saw.connected = self._early is None and not self._pulls
                    if self.offline_until > trio.current_time():
                        raise Lost("by intent")
                    await trio.sleep(LOOK_S * self.rng.uniform(0.5, 1.0))
            except (Lost, OSError, Ended) as why:
                self.record.note(f"{self.name} leaves: {why!r}")
            nursery.cancel_scope.cancel()

    async def _receive(self, line: Line, scope: trio.CancelScope) -> None:
        try:
            while True:
                if (wait := self.deaf_until - trio.current_time()) > 0:
                    await trio.sleep(wait)
                message = await line.carrier.receive()
                if "id" in message:
                    line.take_reply(message)
                else:
                    self._on_event(message)
        except (Ended, OSError):
            self.record.note(f"{self.name} ended")
            scope.cancel()

    def _part(self) -> None:
        self.line = None
        self.saw.connected = False
        self.saw.unanswered = 0
        self.record.count("connections ended")
        for intent in self.intents.values():
            intent.doubtful = True

    async def _open(self, line: Line) -> None:
        welcome = await line.ask("hello", {"token": self._token})
        if welcome["t"] != "ok":
            self._bye_at = trio.current_time() + self.rng.uniform(0.2, 2.0)
            raise Lost(f"hello: {welcome}")
        line.opened = True
        self.record.count("connections")
        await self._sync(line, None)
        self._watch_due = trio.current_time()

    # Catching up

    async def _sync(self, line: Line, next_: str | None) -> None:
        fields: Map = {"cursors": dict(self.saw.cursors), "limit": SYNC_LIMIT}
        if next_ is not None:
            fields["next"] = next_
        self._sync_next = next_
        self._sync_due = float("inf")
        await line.post("sync", fields, self._on_sync)

    def _on_sync(self, reply: Map) -> None:
        now = trio.current_time()
        if reply["t"] != "ok":
            self._sync_due = now + self.rng.uniform(0.1, 1.0)
            return
        for item in reply["conversations"]:
            self._listed.add(item["conv"])
            for entry in item["entries"]:
                self._take(entry, live=False)
            if item["more"]:
                self._pull(item["conv"])
        if "next" in reply:
            self._sync_next = reply["next"]
            self._sync_due = now
            return
        early, self._early = self._early or [], None
        for event in early:
            self._on_event(event)

    def _pull(self, conv: str) -> None:
        """Ask for what is missing; at most one question at a time."""
        if conv in self._pulls:
            self._pulls[conv].again = True
            return
        self._pulls[conv] = Pull()
        self._pulls_due[conv] = trio.current_time()

    def _on_history(self, conv: str, reply: Map) -> None:
        pull = self._pulls[conv]
        if reply["t"] != "ok":
            if reply["retry"]:
                self._pulls_due[conv] = trio.current_time() + self.rng.uniform(0.1, 1.0)
            else:
                self._listed.discard(conv)  # out, by now: there is nothing to catch up with
                for event in self._pulls.pop(conv).waiting:
                    self._take(event, live=True)
            return
        before = self.saw.cursors.get(conv, 0)
        for entry in reply["entries"]:
            self._take(entry, live=False)
        cursor = self.saw.cursors.get(conv, 0)
        if cursor < reply["head"] and cursor == before:
            self.record.wrong(
                f"{self.name}: {conv}: a page after {cursor} of {reply['head']} empty"
            )
        if pull.again or cursor < reply["head"]:
            pull.again = False
            self._pulls_due[conv] = trio.current_time()
            return
        del self._pulls[conv]
        for event in pull.waiting:
            self._take(event, live=True)

    async def _do_what_is_due(self, line: Line) -> None:
        now = trio.current_time()
        if self._early is not None and self._sync_due <= now:
            await self._sync(line, self._sync_next)
        if self._watch and self._watch_due <= now:
            self._watch_due = float("inf")
            await line.post("presence.watch", {"users": self._watch}, self._on_watch)
        for conv in [conv for conv, at in self._pulls_due.items() if at <= now]:
            del self._pulls_due[conv]
            fields = {"conv": conv, "after": self.saw.cursors.get(conv, 0), "limit": HISTORY_LIMIT}
            await line.post("history", fields, partial(self._on_history, conv), conv=conv)
        for key in [key for key, at in self._due.items() if at <= now]:
            intent = self.intents.get(key)
            if intent is not None and self._patient and intent.doubtful:
                if self._early is not None or intent.conv in self._pulls:
                    continue
                self._find(intent)
            del self._due[key]
            if intent is not None and not intent.settled:
                await self._send(line, intent)

    # Events

    def _on_event(self, event: Map) -> None:
        t = event["t"]
        if t == "msg":
            self._show(event)
        if t == "bye":
            self.record.count(f"bye {event['code']}")
            self._bye_at = trio.current_time() + min(event.get("after_ms", 0) / 1000, REPLY_S)
        elif t == "presence":
            self._on_states(event["users"])
        elif self._early is not None and t in ("msg", "behind"):
            self._early.append(event)
        elif t == "behind":
            self.record.count("behind")
            self._pull(event["conv"])
        elif t == "msg":
            pull = self._pulls.get(event["conv"])
            if pull is not None:
                pull.waiting.append(event)
            else:
                self._take(event, live=True)

    def _show(self, entry: Map) -> None:
        self.saw.shown.setdefault(entry["conv"], set()).add(entry["seq"])

    def _take(self, entry: Map, *, live: bool) -> None:
        """Into the copy of the log: what is known is dropped, what is next is added."""
        self._show(entry)
        conv, seq = entry["conv"], entry["seq"]
        cursor = self.saw.cursors.get(conv, 0)
        if seq <= cursor:
            self.record.count("known already")
            return
        if seq != cursor + 1 and not begins_for(entry, self.user):
            how = "live" if live else "pulled"
            hole = f"{self.name}: {conv}: a hole: {seq} ({how}) after {cursor}"
            if conv in self._listed:
                self.record.wrong(hole)
            elif conv not in self._owed:
                self._owed.add(conv)
                self.record.owed.append((self.user, conv, seq, hole))
        if ends_for(entry, self.user):
            self._owed.discard(conv)
            self._listed.discard(conv)
        elif seq == cursor + 1:
            self._listed.add(conv)
        self.saw.cursors[conv] = seq
        if entry["from"] == self.user and "key" in entry:
            self._own[entry["key"]] = seq
        body = entry.get("body")
        seen = Seen(seq, entry["from"], entry["kind"], body, live)
        self.saw.logs.setdefault(conv, []).append(seen)
        self.record.count("live" if live else "pulled")
        self.record.note(f"{self.name} takes {conv} {seq} {'live' if live else 'pulled'}")

    def _on_watch(self, reply: Map) -> None:
        if reply["t"] == "ok":
            self._on_states(reply["users"])
        else:
            self._watch_due = trio.current_time() + self.rng.uniform(0.1, 1.0)

    def _on_states(self, users: list[Map]) -> None:
        for state in users:
            self.saw.presence[state["user"]] = state["online"]

    def leave_for_good(self) -> None:
        """It goes away; nobody waits for what it began."""
        self.offline_until = float("inf")
        for intent in self.intents.values():
            intent.abandoned = True

    # Intents

    def intend(self, t: str, conv: str, key: str, fields: Map) -> None:
        """Have something said, until it is answered."""
        gone = self.offline_until == float("inf")
        begun = self.record.now()
        intent = Intent(
            self.user, t, conv, key, fields, self._patient, begun_at=begun, abandoned=gone
        )
        self.record.intents.append(intent)
        self.intents[key] = intent
        self._due[key] = 0.0

    def _find(self, intent: Intent) -> None:
        """Settle it if it is in the log."""
        if seq := self._own.get(intent.key, 0):
            intent.seq = seq
            intent.acknowledged_at = self.record.now()
            self.record.count("found in the log")
            del self.intents[intent.key]

    async def _send(self, line: Line, intent: Intent) -> None:
        fields = {"key": intent.key, **intent.fields}
        await line.post(intent.t, fields, partial(self._on_answer, intent), conv=intent.conv)

    def _on_answer(self, intent: Intent, reply: Map) -> None:
        if reply["t"] == "ok":
            intent.seq = reply["seq"]
            intent.acknowledged_at = self.record.now()
            self.record.count("acknowledged")
        elif reply["retry"]:
            intent.doubtful = True
            wait = max(reply.get("after_ms", 0) / 1000, self.rng.uniform(0.1, 1.5))
            self._due[intent.key] = trio.current_time() + wait
        else:
            intent.refused = reply["code"]
        if intent.settled:
            self.intents.pop(intent.key, None)

    async def look(self, fields: Map, *, conv: str) -> None:
        """At a page of a log, to see that it may be seen."""
        if self.line is not None:
            await self.line.post("history", fields, self._on_look, conv=conv)

    def _on_look(self, reply: Map) -> None:
        for entry in reply.get("entries", ()):
            self._show(entry)

    async def say_once(self, t: str, fields: Map, *, conv: str = "") -> None:
        """A command whose answer changes nothing for this client."""
        if self.line is not None:
            await self.line.post(t, fields, lambda reply: None, conv=conv)
