"""What is decided within one turn counts at once for what follows in it; what fails never was.

The store holds a commit back until the test lets it go, so that the commands after it are known to
be decided together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from actors.memory import Recent
from storage.errors import Unavailable
from storage.memory import MemoryStore
from storage.records import Append, Commit, Entry, Loaded, User, encode_entry
from tests.broker.commands.people import entries_heard, heard, say, seqs
from tests.helpers.broker import Broker, running_broker
from tests.helpers.peer import Map, Peer


class GatedStore(MemoryStore):
    """Methods that wait at a gate, and commits that fail."""

    def __init__(self) -> None:
        super().__init__()
        self._gates: dict[str, trio.Event] = {}
        self.held = trio.Event()
        self.failures = 0
        self.doubts = 0
        """Commits that take place, and of which nobody is told."""
        self.commits = 0

    def hold(self, method: str = "commit") -> trio.Event:
        """Its next call waits for the event that is returned; `held` tells that it does."""
        self.held = trio.Event()
        self._gates[method] = trio.Event()
        return self._gates[method]

    async def _pass(self, method: str) -> None:
        gate = self._gates.pop(method, None)
        if gate is not None:
            self.held.set()
            await gate.wait()

    async def commit(self, commit: Commit) -> None:
        await self._pass("commit")
        if self.failures:
            self.failures -= 1
            raise Unavailable("the disk is full", applied=False)
        self.commits += 1
        await super().commit(commit)
        if self.doubts:
            self.doubts -= 1
            raise Unavailable("no answer", applied=None)

    async def load(
        self, convs: Sequence[str], tail: int, epochs: Mapping[str, int] | None = None
    ) -> dict[str, Loaded]:
        await self._pass("load")
        return await super().load(convs, tail, epochs)

    async def users(self, ids: Iterable[int]) -> dict[int, User]:
        await self._pass("users")
        return await super().users(ids)

    async def read(
        self, conv: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[bytes]:
        # What is found is as it was when the read began, however long it takes.
        found = await super().read(conv, after=after, before=before, limit=limit)
        await self._pass("read")
        return found


@pytest.fixture
def store() -> GatedStore:
    return GatedStore()


@pytest.fixture
async def broker(tmp_path: Path, store: GatedStore) -> AsyncIterator[Broker]:
    async with running_broker(tmp_path, store=store) as broker:
        yield broker


async def room(broker: Broker) -> tuple[Peer, Peer, Peer, str]:
    ann, bob, cy = [await broker.join(name) for name in ("ann", "bob", "cy")]
    made = await ann.ok(
        "group.create", title="Room", visibility="public", join="open", members=[bob.user]
    )
    for peer in (ann, bob):
        await heard(peer)
    return ann, bob, cy, made["conv"]


async def together(store: GatedStore, steps: list[tuple[Peer, str, Map]]) -> list[Map]:
    """The replies to commands that are decided in one turn, in this order."""
    first = steps[0][0]
    gate = store.hold()
    commits = store.commits
    # Something of another conversation, for the turn before.
    other = await first.send("group.create", title="elsewhere")
    await store.held.wait()
    ids = []
    for peer, command, fields in steps:
        ids.append(await peer.send(command, **fields))
        await peer.ok("ping")  # it has been read, and is in the mailbox, before the next is sent
    gate.set()
    replies = [await peer.reply(id) for (peer, _, _), id in zip(steps, ids, strict=True)]
    await first.reply(other)
    assert store.commits <= commits + 2, "not decided in one turn"
    return replies


def message(conv: str, key: str = "k", body: str = "hi") -> Map:
    return {"conv": conv, "key": key, "kind": "text", "body": body}


def outcomes(replies: list[Map]) -> list[str]:
    return [reply.get("code", "ok") for reply in replies]


async def test_who_was_kicked_a_moment_ago_cannot_speak(broker: Broker, store: GatedStore) -> None:
    ann, bob, _, conv = await room(broker)

    replies = await together(
        store,
        [
            (bob, "send", message(conv, "1")),
            (ann, "group.kick", {"conv": conv, "user": bob.user}),
            (bob, "send", message(conv, "2")),
            (ann, "send", message(conv)),
        ],
    )

    assert outcomes(replies) == ["ok", "ok", "forbidden", "ok"]
    last = [e["body"] for e in await entries_heard(bob) if e["conv"] == conv]
    assert last == [
        "hi",
        {"event": "kicked", "users": [bob.user], "by": ann.user},
    ]
    assert [e["seq"] for e in await entries_heard(ann) if e["conv"] == conv] == [2, 3, 4]


async def test_who_came_a_moment_ago_can(broker: Broker, store: GatedStore) -> None:
    _, _, cy, conv = await room(broker)

    replies = await together(
        store,
        [
            (cy, "send", message(conv, "1")),
            (cy, "group.join", {"conv": conv}),
            (cy, "send", message(conv, "2")),
        ],
    )

    assert outcomes(replies) == ["forbidden", "ok", "ok"]
    assert [e["seq"] for e in await entries_heard(cy) if e["conv"] == conv] == [2, 3]


async def test_who_comes_and_goes_at_once_reads_just_that(
    broker: Broker, store: GatedStore
) -> None:
    ann, _, cy, conv = await room(broker)

    replies = await together(
        store,
        [
            (ann, "send", message(conv, "1")),
            (cy, "group.join", {"conv": conv}),
            (ann, "send", message(conv, "2")),
            (cy, "group.leave", {"conv": conv}),
            (ann, "send", message(conv, "3")),
            (cy, "group.join", {"conv": conv}),
            (ann, "send", message(conv, "4")),
            (cy, "group.leave", {"conv": conv}),
            (ann, "send", message(conv, "5")),
        ],
    )

    assert outcomes(replies) == ["ok"] * 9
    assert [e["seq"] for e in await entries_heard(cy)] == [3, 4, 5, 7, 8, 9]
    assert (await cy.error("history", conv=conv))["code"] == "forbidden"
    assert [m.user for m in await store.members(conv, after=0, limit=9)] == [1, 2]


async def test_two_who_take_the_last_place(tmp_path: Path, store: GatedStore) -> None:
    async with running_broker(tmp_path, store=store, limits__group_members=3) as broker:
        _, _, cy, conv = await room(broker)
        dan = await broker.join("dan")

        replies = await together(
            store, [(cy, "group.join", {"conv": conv}), (dan, "group.join", {"conv": conv})]
        )

        assert outcomes(replies) == ["ok", "too_large"]


async def test_what_follows_a_dissolution_finds_nothing(broker: Broker, store: GatedStore) -> None:
    ann, bob, cy, conv = await room(broker)

    replies = await together(
        store,
        [
            (ann, "group.dissolve", {"conv": conv}),
            (bob, "send", message(conv)),
            (cy, "group.join", {"conv": conv}),
            (bob, "group.get", {"conv": conv}),
        ],
    )

    assert outcomes(replies) == ["ok", "not_found", "not_found", "not_found"]


async def test_a_change_that_was_not_stored_never_was(broker: Broker, store: GatedStore) -> None:
    ann, bob, cy, conv = await room(broker)
    store.failures = 3

    refused = await ann.error("group.kick", conv=conv, user=bob.user)
    assert (refused["code"], refused["retry"]) == ("unavailable", True)
    assert (await cy.error("group.join", conv=conv))["code"] == "unavailable"
    assert (await ann.error("group.create", title="never"))["code"] == "unavailable"

    assert (await ann.ok("group.get", conv=conv))["members"] == 2
    assert await say(bob, conv, "still here") == 2
    assert await heard(cy) == []
    assert [g["title"] for g in (await ann.ok("group.mine"))["groups"]] == ["Room"]
    assert seqs(await entries_heard(ann)) == [2]
    assert (await ann.ok("group.create", title="now"))["seq"] == 1


async def test_what_waits_behind_a_failure_is_decided_on_what_is_stored(
    broker: Broker, store: GatedStore
) -> None:
    """A key of the failed turn must not be taken for one of an entry that is there."""
    _, bob, _, conv = await room(broker)
    gate = store.hold()
    store.failures = 1
    first = await bob.send("send", **message(conv, "key"))
    await store.held.wait()
    again = await bob.send("send", **message(conv, "key"))
    other = await bob.send("send", **message(conv, "other", "second"))
    listing = await bob.send("group.members", conv=conv)
    await bob.ok("ping")

    gate.set()
    assert (await bob.reply(first))["code"] == "unavailable"
    replies = [await bob.reply(id) for id in (again, other, listing)]

    assert outcomes(replies) == ["ok", "ok", "ok"]
    entries = (await bob.ok("history", conv=conv, after=0))["entries"]
    assert [e.get("key") for e in entries] == [None, "key", "other"]


async def test_a_group_that_is_asked_for_too_early_gets_another_number(
    broker: Broker, store: GatedStore
) -> None:
    """Two actors of one conversation would both write its log."""
    ann, bob = await broker.join("ann"), await broker.join("bob")
    gate = store.hold("load")
    ids = [await bob.send("group.get", group=n) for n in range(1, 4)]
    await store.held.wait()

    made = await ann.ok("group.create", title="x", members=[bob.user])
    gate.set()

    assert made["group"] == 4
    assert outcomes([await bob.reply(id) for id in ids]) == ["not_found"] * 3
    assert await say(bob, made["conv"], "one") == 2
    assert await say(ann, made["conv"], "two") == 3
    assert seqs(await entries_heard(ann)) == [1, 2, 3]


async def test_who_may_no_more_when_it_is_decided_may_not(
    broker: Broker, store: GatedStore
) -> None:
    """An invitation looks its users up first; meanwhile things change."""
    ann, bob, cy, conv = await room(broker)
    await ann.ok("group.set", conv=conv, join="invite")
    await ann.ok("group.role", conv=conv, user=bob.user, role="admin")
    gate = store.hold("users")
    inviting = await bob.send("group.invite", conv=conv, users=[cy.user])
    await store.held.wait()

    await ann.ok("group.role", conv=conv, user=bob.user, role="member")
    gate.set()

    assert (await bob.reply(inviting))["code"] == "forbidden"
    assert (await ann.ok("group.get", conv=conv))["members"] == 2


async def log_in_store(store: GatedStore, conv: str, entries: int, sender: int) -> None:
    """A log that no actor has ever seen."""
    payloads = [
        encode_entry(Entry(seq=seq, sender=sender, ts=1, kind="text", body=f"{seq}"))
        for seq in range(1, entries + 1)
    ]
    await store.commit(Commit(appends=[Append(conv, 1, payloads, 1)]))


async def test_a_long_sync_shows_nothing_from_after_one_had_to_go(
    broker: Broker, store: GatedStore
) -> None:
    ann, bob, _, conv = await room(broker)
    await log_in_store(store, f"d/{ann.user}/{bob.user}", 3, ann.user)
    gate = store.hold("read")  # of the direct conversation, which comes first
    syncing = await bob.send("sync")
    await store.held.wait()

    await ann.ok("group.kick", conv=conv, user=bob.user)
    await say(ann, conv, "now that he is gone")
    gate.set()

    found = {c["conv"]: seqs(c["entries"]) for c in (await bob.reply(syncing))["conversations"]}
    assert found[f"d/{ann.user}/{bob.user}"] == [1, 2, 3]
    assert found.get(conv, [1]) == [1]


async def test_a_history_that_is_fetched_while_one_has_to_go_is_refused(
    broker: Broker, store: GatedStore
) -> None:
    ann, bob, _, conv = await room(broker)
    for n in range(600):
        await ann.send("send", **message(conv, f"{n}"))
    await ann.ok("ping")
    await say(ann, conv, "the last of very many")
    gate = store.hold("read")
    reading = await bob.send("history", conv=conv, after=0, limit=5)
    await store.held.wait()

    await ann.ok("group.kick", conv=conv, user=bob.user)
    gate.set()

    assert (await bob.reply(reading))["code"] == "forbidden"


async def test_who_is_behind_learns_that_they_had_to_go(tmp_path: Path, store: GatedStore) -> None:
    """On a connection without live entries the event `conv` is all that there is."""
    async with running_broker(tmp_path, store=store, outbox__high_bytes=64 * 1024) as broker:
        ann, bob, _, conv = await room(broker)
        for n in range(400):  # more than the kernel holds for one who does not read
            await say(ann, conv, f"{n} {'x' * 60_000}")
        await ann.ok("group.kick", conv=conv, user=bob.user)
        await say(ann, conv, "gone")

        events = await heard(bob)

        kinds = [event["t"] for event in events]
        received = [event["seq"] for event in events if event["t"] == "msg"]
        assert kinds.count("behind") == 1
        assert received == list(range(2, 2 + len(received)))
        assert len(received) < 400
        notice = events[-1]
        assert (notice["t"], notice["change"], notice["users"]) == ("conv", "kicked", [bob.user])
        assert (await bob.error("history", conv=conv, after=received[-1]))["code"] == "forbidden"


async def crowd(broker: Broker) -> tuple[list[Peer], str]:
    """A group of six, more than are looked at one by one; the first is its owner."""
    peers = [await broker.join(f"user {n}") for n in range(6)]
    made = await peers[0].ok("group.create", title="Crowd", members=[p.user for p in peers[1:]])
    for peer in peers:
        await heard(peer)
    return peers, made["conv"]


async def test_what_is_said_around_a_change_is_heard_in_order(
    broker: Broker, store: GatedStore
) -> None:
    peers, conv = await crowd(broker)
    owner, bob, cy = peers[:3]

    replies = await together(
        store,
        [
            (bob, "send", message(conv, "1")),
            (owner, "group.set", {"conv": conv, "title": "Mob"}),
            (cy, "send", message(conv, "2")),
        ],
    )

    assert outcomes(replies) == ["ok"] * 3
    for peer in peers:
        told = [e for e in await heard(peer) if e.get("conv") == conv]
        assert [e.get("seq", e["t"]) for e in told] == [2, "conv", 3, 4]


async def test_a_crowd_that_becomes_few_hears_everything_in_order(
    broker: Broker, store: GatedStore
) -> None:
    peers, conv = await crowd(broker)
    owner, bob, cy, dan = peers[:4]

    replies = await together(
        store,
        [
            (bob, "send", message(conv, "1")),
            (cy, "group.leave", {"conv": conv}),
            (dan, "group.leave", {"conv": conv}),
            (owner, "send", message(conv, "2")),
        ],
    )

    assert outcomes(replies) == ["ok"] * 4
    for peer, last in zip(peers, [5, 5, 3, 4, 5, 5], strict=True):
        heard_of = [e["seq"] for e in await entries_heard(peer) if e["conv"] == conv]
        assert heard_of == list(range(2, last + 1))


async def test_an_edit_and_a_recall_at_once(broker: Broker, store: GatedStore) -> None:
    """The recall empties the edit too, which is not stored yet when both are decided."""
    ann, bob, _, conv = await room(broker)
    ref = await say(bob, conv, "secret")
    before = store.hold()
    await ann.send("group.create", title="elsewhere")
    await store.held.wait()
    edit = await bob.send("edit", conv=conv, ref=ref, key="e", body="more secret")
    recall = await bob.send("recall", conv=conv, ref=ref, key="r")
    await bob.ok("ping")
    gate = store.hold()
    before.set()
    await store.held.wait()
    await trio.testing.wait_all_tasks_blocked()
    gate.set()

    assert [(await bob.reply(id)).get("seq") for id in (edit, recall)] == [ref + 1, ref + 2]
    found = (await ann.ok("history", conv=conv, after=ref - 1))["entries"]
    assert [e.get("body") for e in found] == [None, None, None]


async def test_what_is_found_out_late_undoes_nothing(broker: Broker, store: GatedStore) -> None:
    """An old message is looked up for an edit; before that is back, an admin recalls it."""
    ann, bob, _, conv = await room(broker)
    ref = await say(bob, conv, "secret")
    actor = broker.active(conv)
    actor.recent = Recent(actor.head)  # as if so much had been said since that it is held no more
    gate = store.hold("read")
    edit = await bob.send("edit", conv=conv, ref=ref, key="e", body="again")
    await store.held.wait()
    await ann.ok("recall", conv=conv, ref=ref, key="r")
    gate.set()

    assert (await bob.reply(edit))["code"] == "conflict"
    (entry,) = (await ann.ok("history", conv=conv, after=ref - 1, limit=1))["entries"]
    assert entry["recalled"]
    assert entry.get("body") is None


async def test_outsiders_cannot_tell_a_private_group_from_none(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    hidden = (await ann.ok("group.create", title="Hidden"))["conv"]
    for command in ("group.get", "group.join", "group.leave", "group.members", "history"):
        refusals = [await bob.error(command, conv=conv) for conv in (hidden, "g/999")]
        for refusal in refusals:
            del refusal["id"]
        assert refusals[0] == refusals[1]


@pytest.mark.parametrize("over", ["tcp", "ws-json"])
async def test_the_edit_of_an_image_may_be_sent_again(broker: Broker, over: str) -> None:
    ann = await broker.join("ann", over=over)
    conv = (await ann.ok("group.create", title="x"))["conv"]
    sent = {"name": "n", "mime": "m", "data": b"one"}
    ref = (await ann.ok("send", conv=conv, key="k", kind="image", body=sent))["seq"]
    edit = {"conv": conv, "ref": ref, "key": "e", "body": {**sent, "data": b"two"}}
    first = await ann.ok("edit", **edit)
    assert (await ann.ok("edit", **edit))["seq"] == first["seq"]
    broker.active(conv).end()
    assert (await ann.ok("edit", **edit))["seq"] == first["seq"]
    other = edit | {"body": {**sent, "data": b"three"}}
    assert (await ann.error("edit", **other))["code"] == "conflict"


async def test_who_came_by_a_commit_in_doubt_is_told_that_they_missed_their_own_coming(
    broker: Broker, store: GatedStore
) -> None:
    ann, _, cy, conv = await room(broker)
    store.doubts = 1
    assert (await cy.error("group.join", conv=conv))["code"] == "unavailable"
    sent = await ann.ok("send", conv=conv, key="k", kind="text", body="hi")
    behind = await cy.event("behind")
    assert (behind["conv"], behind["head"]) == (conv, sent["seq"] - 1)
    page = await cy.ok("history", conv=conv, after=0, limit=10)
    assert [entry["seq"] for entry in page["entries"]] == [1, 2, 3]
    await ann.ok("send", conv=conv, key="k2", kind="text", body="and again")
    assert (await cy.event("msg"))["seq"] == 4, "live again"
