"""What a running broker answers and tells, against the tables of docs/protocol.md.

One story in which every command is given and every event comes, on connections that hold each frame
to its row.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import STRUCTS
from tests.docs.markdown import DOCS, table
from tests.docs.test_protocol import SHAPES, commands_told_of, events_told_of
from tests.helpers.broker import Broker, running_broker
from tests.helpers.peer import Carrier, Map, Peer, TcpCarrier

PASSWORD = "correct horse"
TEXT = (DOCS / "protocol.md").read_text()
NOT_LIVE = {"event msg.edited_ts", "event msg.recalled"}
"""An entry that comes live is new; these come when it is read back."""


FEW_ARE_TOLD = {"message.readers"}
"""In large groups this is left out; the tests of reading tell."""


class Witness:
    """Holds frames to the document, and remembers what was seen."""

    def __init__(self) -> None:
        self.cells = commands_told_of()
        self.cells |= {f"event {name}": cell for name, cell in events_told_of().items()}
        self.with_field: dict[str, set[str]] = {}
        self.without: dict[str, set[str]] = {}

    def check(self, name: str, frame: Map) -> None:
        """Assert that the frame fits its row."""
        there = SHAPES.check(self.cells[name], frame, name)
        self.with_field.setdefault(name, set()).update(there)
        self.without.setdefault(name, set()).update(self.optional(name) - there)

    def optional(self, name: str) -> set[str]:
        return set(SHAPES.parse(self.cells[name]).optional)

    def never_came(self) -> set[str]:
        """Commands, events and their optional fields."""
        return (self.cells.keys() - self.with_field.keys()) | self._missing(self.with_field)

    def always_came(self) -> set[str]:
        """Fields that are called optional and were always there."""
        return self._missing(self.without)

    def _missing(self, seen: dict[str, set[str]]) -> set[str]:
        return {
            f"{name}.{each}" for name, found in seen.items() for each in self.optional(name) - found
        }


class _Watched:
    def __init__(self, inner: Carrier, witness: Witness) -> None:
        self._inner = inner
        self._witness = witness
        self._asked: dict[int, str] = {}

    async def send(self, message: Map) -> None:
        self._asked[message["id"]] = message["t"]
        await self._inner.send(message)

    async def receive(self) -> Map:
        frame = await self._inner.receive()
        if frame["t"] == "ok":
            self._witness.check(self._asked.pop(frame["id"]), frame)
        elif "id" not in frame and frame["t"] != "error":
            self._witness.check(f"event {frame['t']}", frame)
        return frame

    async def break_off(self) -> None:
        """Send what is no frame."""
        assert isinstance(self._inner, TcpCarrier)
        await self._inner.stream.send_all(b"\xff" * 8)

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """One whose connections fall behind soon."""
    outbox: dict[str, Any] = {"outbox__soft_bytes": 2048, "outbox__high_bytes": 4096}
    async with running_broker(tmp_path, **outbox) as broker:
        yield broker


async def test_every_answer_and_event_is_as_documented(broker: Broker) -> None:
    witness = Witness()

    async def connected() -> Peer:
        peer = await broker.tcp()
        peer.carrier = _Watched(peer.carrier, witness)
        return peer

    async def joined(name: str) -> Peer:
        peer = await connected()
        await peer.hello(await broker.token(name))
        return peer

    await accounts(await connected())
    alice, phone, bob = await joined("alice"), await joined("alice"), await joined("bob")
    direct = await messages(alice, bob)
    await reading(alice, bob, direct)
    await lists(alice, phone, direct)
    await people(alice, bob)
    await groups(alice, bob, await joined("carol"))
    await falling_behind(alice, await connected(), await broker.token("bob"))
    await no_frame(await connected())
    broker.running.stop()
    assert (await alice.event("bye"))["code"] == "draining"
    for peer in (phone, bob):
        await peer.ended()
    assert witness.never_came() == NOT_LIVE
    assert witness.always_came() == FEW_ARE_TOLD


async def accounts(peer: Peer) -> None:
    await peer.ok("ping")
    await peer.ok("register", name="zoe", password=PASSWORD)
    session = await peer.ok("login", name="zoe", password=PASSWORD)
    await peer.ok("refresh", refresh=session["refresh"])


async def messages(alice: Peer, bob: Peer) -> str:
    sent = await alice.ok("send", to={"user": bob.user}, key="1", kind="text", body="hi")
    conv: str = sent["conv"]
    # Both the entry that came live and what is read back later.
    mention = {"reply_to": 1, "mentions": [alice.user]}
    await bob.ok("send", conv=conv, key="1", kind="text", body="and?", **mention)
    await bob.ok("edit", conv=conv, ref=2, key="2", body="and you?")
    await alice.ok("pin", conv=conv, ref=1, key="2")
    await alice.ok("unpin", conv=conv, ref=1, key="3")
    await alice.ok("react", conv=conv, ref=2, key="4", emoji="👍")
    await alice.ok("send", conv=conv, key="5", kind="emoji", body="wave")
    await alice.ok("recall", conv=conv, ref=7, key="6")
    return conv


async def reading(alice: Peer, bob: Peer, conv: str) -> None:
    await alice.ok("history", conv=conv)
    await bob.ok("sync")
    await bob.ok("typing", conv=conv)
    await bob.ok("delivered", conv=conv, seq=7)
    await bob.ok("read", conv=conv, seq=8)
    assert (await alice.ok("message", conv=conv, seq=1))["readers"] == [bob.user]
    await alice.event("read")


async def lists(alice: Peer, phone: Peer, conv: str) -> None:
    await alice.ok("unread")
    await alice.ok("conversation.set", conv=conv, pinned=True)
    await phone.event("conversation")
    for title in ("one", "two"):
        await alice.ok("group.create", title=title)
    await alice.ok("conversations")
    assert (await alice.ok("conversations", limit=1))["next"]
    assert (await alice.ok("sync", limit=1))["next"]


async def people(alice: Peer, bob: Peer) -> None:
    await bob.ok("profile.get")
    shown = {"show_email": "everyone", "show_phone": "everyone"}
    own = {"email": "bob@example.org", "phone": "+49 30 1234567"}
    await bob.ok("presence.watch", users=[alice.user])
    await alice.ok("presence.watch", users=[bob.user])
    await bob.ok("profile.set", status="away", **own, **shown)
    await alice.event("presence")
    await alice.ok("presence.get", users=[bob.user])
    await alice.ok("presence.unwatch", users=[bob.user])
    zoe = (await alice.ok("user.find", query="zoe"))["users"]
    assert zoe
    assert (await alice.ok("user.get", user=bob.user))["email"] == own["email"]
    # `zoe` was here and is gone, and nobody may see her address.
    assert "last_seen" in await alice.ok("user.get", name="zoe")


async def groups(alice: Peer, bob: Peer, carol: Peer) -> None:
    public = {"visibility": "public", "join": "open"}
    group = (await alice.ok("group.create", title="tea", **public))["group"]
    await bob.ok("group.get", group=group)
    await bob.ok("group.join", group=group)
    await alice.ok("group.get", group=group)
    await alice.ok("send", conv=f"g/{group}", key="in a group", kind="text", body="tea?")
    everything: dict[str, Any] = {"title": "Tea", "avatar": "🍵", "about": "hot"}
    everything |= {"visibility": "private", "join": "invite", "history": "joined"}
    await alice.ok("group.set", group=group, **everything)
    for _ in range(2):
        await alice.ok("group.set", group=group, visibility="public")
        await alice.ok("group.invite", group=group, users=[carol.user])
        await alice.ok("group.role", group=group, user=bob.user, role="admin")
    for name, fields in (("members", {"group": group}), ("find", {"query": "tea"}), ("mine", {})):
        await alice.ok(f"group.{name}", **fields)
    assert (await alice.ok("group.members", group=group, limit=1))["next"]
    await alice.ok("group.create", title="tea too", visibility="public")
    assert (await alice.ok("group.find", query="tea", limit=1))["next"]
    assert (await alice.ok("group.mine", limit=1))["next"]
    await bob.ok("group.kick", group=group, user=carol.user)
    await alice.ok("group.transfer", group=group, user=bob.user)
    await alice.ok("group.leave", group=group)
    await bob.ok("group.dissolve", group=group)


async def falling_behind(alice: Peer, slow: Peer, token: str) -> None:
    """Somebody who does not read until the broker has given up to send all of it."""
    await slow.hello(token)
    body = "x" * 60_000
    for number in range(500):
        key = f"much {number}"
        await alice.ok("send", to={"user": slow.user}, key=key, kind="text", body=body)
        alice.events.clear()
    await slow.event("behind")
    await slow.aclose()


async def no_frame(peer: Peer) -> None:
    """A goodbye that names no time to come back."""
    assert isinstance(peer.carrier, _Watched)
    await peer.carrier.break_off()
    assert (await peer.event("bye"))["code"] == "bad_frame"


def test_a_frame_with_a_field_too_many_or_too_few_is_noticed() -> None:
    cell = commands_told_of()["history"]
    entry = {"t": "msg", "conv": "g/1", "seq": 1, "from": 1, "ts": 1, "kind": "text"}
    SHAPES.check(cell, {"t": "ok", "id": 1, "head": 1, "entries": [entry]}, "history")
    for wrong in ({"head": 1}, {"head": 1, "entries": [{**entry, "more": 1}]}):
        with pytest.raises(AssertionError):
            SHAPES.check(cell, {"t": "ok", "id": 1, **wrong}, "history")


def test_the_tables_name_what_the_story_tells() -> None:
    assert {row[0].strip("`") for row in table(TEXT, "command", "reply")} == STRUCTS.keys()
