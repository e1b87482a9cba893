"""The client and the real broker, each by its own codec: every entry once and in order."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trio.testing

from broker.client import (
    Ack,
    Client,
    CommandError,
    ConnectionChanged,
    Message,
    NotLoggedIn,
    Presence,
    ReadMark,
    Typing,
    connect,
)
from broker.client.accounts import login, refresh, register
from broker.client.address import Address
from broker.client.transport import open_stream
from storage.memory import MemoryStore
from tests.helpers.broker import Broker, running_broker


def url(broker: Broker, over: str = "tcp") -> str:
    if over == "tcp":
        return f"tcp://{broker.running.tcp}"
    return f"ws://{broker.running.http}/ws"


class Line:
    """What a client dials by: it can lose what goes either way, be cut, and stay dead a while."""

    def __init__(self) -> None:
        self.restored = trio.Event()
        self.restored.set()
        self.stream: LossyStream | None = None

    async def open_stream(
        self, address: Address, context: ssl.SSLContext | None
    ) -> trio.abc.Stream:
        await self.restored.wait()
        self.stream = LossyStream(await open_stream(address, context))
        return self.stream

    async def cut(self) -> None:
        """Cut the connection; the next one comes when `restored` is set."""
        assert self.stream is not None
        self.restored = trio.Event()
        await self.stream.aclose()


class LossyStream(trio.abc.Stream):
    """A connection that may swallow what is sent, or what comes."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        self.mute = self.deaf = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not self.mute:
            await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        while (data := await self.inner.receive_some(max_bytes)) and self.deaf:
            pass
        return data

    async def aclose(self) -> None:
        await self.inner.aclose()


async def messages(client: Client, count: int) -> list[Message]:
    """The next messages, whatever else comes between."""
    found: list[Message] = []
    with trio.fail_after(20):
        while len(found) < count:
            event = await anext(client)
            if isinstance(event, Message):
                found.append(event)
    return found


@pytest.mark.parametrize("over", ["tcp", "ws"])
async def test_two_people_talk(broker: Broker, over: str) -> None:
    async with (
        connect(url(broker, over), token=await broker.token("ann")) as ann,
        connect(url(broker, over), token=await broker.token("bob")) as bob,
    ):
        ack = await ann.send(to_user=bob.user, body="hi \U0001fad6")
        assert ack.online
        await bob.send(ack.conv, {"any": [1, None, b"\xff"]}, kind="custom", reply_to=ack.seq)
        await ann.edit(ack.conv, ack.seq, "hello")
        await bob.react(ack.conv, ack.seq, "\U0001f44d")
        await ann.recall(ack.conv, ack.seq)
        for client in (ann, bob):
            kinds = [each.kind for each in await messages(client, 5)]
            assert kinds == ["text", "custom", "edit", "react", "recall"]
        page = await bob.history(ack.conv)
        assert [each.seq for each in page.entries] == [1, 2, 3, 4, 5]
        assert page.entries[0].recalled
        assert page.entries[1].body == {"any": [1, None, b"\xff"]}
        entry, _readers = await bob.message(ack.conv, 2)
        assert (entry.sender, entry.reply_to) == (bob.user, 1)


async def test_typing_reading_and_presence(broker: Broker) -> None:
    async with connect(url(broker), token=await broker.token("ann")) as ann:
        bob_id = (await broker.user("bob")).id
        assert [each.online for each in await ann.watch([bob_id])] == [False]
        async with connect(url(broker), token=await broker.token("bob")) as bob:
            ack = await ann.send(to_user=bob.user, body="hi")
            await bob.typing(ack.conv)
            assert await bob.read(ack.conv, 1) == 0
            wanted = {
                Typing: Typing(ack.conv, bob.user, True),
                ReadMark: ReadMark(ack.conv, bob.user, 1),
                Presence: None,
            }
            with trio.fail_after(5):
                while wanted:
                    event = await anext(ann)
                    expected = wanted.pop(type(event), None)
                    assert expected in (None, event)


async def test_group_from_founding_to_leaving(broker: Broker) -> None:
    async with (
        connect(url(broker), token=await broker.token("ann")) as ann,
        connect(url(broker, "ws"), token=await broker.token("bob")) as bob,
    ):
        group = await ann.create_group("Tea", visibility="public", join="open")
        assert (group.title, (await bob.group(group.conv)).conv) == ("Tea", group.conv)
        await ann.send(group.conv, "before")
        await bob.join(group.conv)
        await ann.send(group.conv, "during")
        assert [each.user for each in await ann.members(group.conv)] == [ann.user, bob.user]
        assert [each.seq for each in await messages(bob, 2)] == [3, 4]
        await bob.leave(group.conv)
        await ann.send(group.conv, "without")
        await bob.join(group.conv)
        await ann.send(group.conv, "again")
        assert [each.seq for each in await messages(bob, 3)] == [5, 7, 8]
        assert [each.seq for each in await messages(ann, 8)] == list(range(1, 9))
        listed, _next = await ann.conversations()
        assert [(each.title, each.head) for each in listed] == [("Tea", 8)]
        with pytest.raises(CommandError, match="conflict"):
            await bob.join(group.conv)


async def test_account_from_registration_to_refresh(broker: Broker) -> None:
    user = await register(url(broker), "cleo", "long enough", nickname="Cleo")
    with pytest.raises(NotLoggedIn):
        await login(url(broker), "cleo", "wrong password")
    first = await login(url(broker), "cleo", "long enough")
    second = await refresh(url(broker), first.refresh)
    with pytest.raises(NotLoggedIn):
        await refresh(url(broker), first.refresh)
    assert (first.user, second.user) == (user, user)
    with pytest.raises(NotLoggedIn):
        async with connect(url(broker), token="no.such.token"):
            raise AssertionError("not reached")


async def test_everything_from_the_start(broker: Broker) -> None:
    """More conversations than a page of `sync`, more entries than it has of each."""
    conversations, entries = 25, 70
    async with connect(url(broker), token=await broker.token("ann")) as ann:
        for number in range(conversations):
            other = await broker.user(f"other{number}")
            for seq in range(entries if number % 5 == 0 else 2):
                await ann.send(to_user=other.id, body=seq if seq < 0 else str(seq))
    total = 5 * entries + 20 * 2
    async with connect(url(broker), token=await broker.token("ann"), from_start=True) as ann:
        seen: dict[str, list[int]] = {}
        for each in await messages(ann, total):
            seen.setdefault(each.conv, []).append(each.seq)
        assert len(seen) == conversations
        assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in seen.values())
        kept = ann.cursors
        assert sum(kept.values()) == total
    async with connect(url(broker), token=await broker.token("ann"), cursors=kept) as ann:
        ack = await ann.send(to_user=(await broker.user("other0")).id, body="next")
        assert [(each.conv, each.seq) for each in await messages(ann, 1)] == [(ack.conv, ack.seq)]


async def test_application_too_slow_for_the_broker_misses_nothing(tmp_path: Path) -> None:
    count = 3_000
    tight = {"outbox__soft_bytes": 16_384, "outbox__high_bytes": 65_536}
    async with (
        running_broker(tmp_path, **tight) as broker,
        connect(url(broker), token=await broker.token("ann")) as ann,
        connect(url(broker), token=await broker.token("bob"), buffer=8) as bob,
    ):
        behind = 0
        on_event = bob._follower.on_event

        def counting(frame: dict[str, object]) -> None:
            nonlocal behind
            behind += frame["t"] == "behind"
            on_event(frame)

        assert bob._link is not None
        bob._link._on_event = counting
        body = "x" * 4_000
        async with trio.open_nursery() as nursery:
            for _ in range(20):

                @nursery.start_soon
                async def send() -> None:
                    for _ in range(count // 20):
                        await ann.send(to_user=bob.user, body=body)

        seqs = [each.seq for each in await messages(bob, count)]
        assert seqs == list(range(1, count + 1))
        assert behind, "the broker never had to let go: the test proves nothing"


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("buffer", [8, 10_000])
async def test_message_is_there_once_after_an_outage_longer_than_keys_are_known(
    broker: Broker, arrives: bool, buffer: int
) -> None:
    line, count = Line(), 2_500
    async with (
        connect(
            url(broker),
            token=await broker.token("ann"),
            open_stream=line.open_stream,
            buffer=buffer,
        ) as ann,
        connect(url(broker), token=await broker.token("bob"), buffer=count + 10) as bob,
    ):
        conv = (await bob.send(to_user=ann.user, body="first")).conv
        acks: list[Ack] = []

        async def send() -> None:
            acks.append(await ann.send(to_user=bob.user, body="once", key="k"))

        async def chatter() -> None:
            for _ in range(count // 20):
                await bob.send(conv, "more")

        assert line.stream is not None
        line.stream.deaf, line.stream.mute = arrives, not arrives
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            if arrives:
                await messages(bob, 2)
            else:
                await trio.testing.wait_all_tasks_blocked()
            await line.cut()
            async with trio.open_nursery() as others:
                for _ in range(20):
                    others.start_soon(chatter)
            line.restored.set()
        own = []
        for after in range(0, count + 2, 200):
            page = await ann.history(conv, after=after, limit=200)
            own += [each for each in page.entries if each.sender == ann.user]
        assert [(each.seq, each.key) for each in own] == [(2 if arrives else count + 2, "k")]
        assert [(ack.conv, ack.seq, ack.ts) for ack in acks] == [(conv, own[0].seq, own[0].ts)]
        # The application has its events all the same, each once.
        assert [each.seq for each in await messages(ann, count + 2)] == list(range(1, count + 3))


async def test_broker_that_comes_back_is_found_again(tmp_path: Path) -> None:
    store = MemoryStore()
    told_one, lost, done = trio.Event(), trio.Event(), trio.Event()

    async def talk(where: str, ann_token: str, bob_token: str, bob_id: int) -> None:
        async with connect(where, token=ann_token) as ann, connect(where, token=bob_token) as bob:
            await ann.send(to_user=bob_id, body="one")
            assert [each.seq for each in await messages(bob, 1)] == [1]
            told_one.set()
            while not isinstance(await anext(ann), ConnectionChanged):
                pass
            lost.set()
            for text in ("two", "three"):
                await ann.send(to_user=bob_id, body=text)
            assert [each.body for each in await messages(bob, 2)] == ["two", "three"]
        done.set()

    async with trio.open_nursery() as nursery:
        async with running_broker(tmp_path, store=store) as broker:
            port = broker.running.tcp.port
            tokens = await broker.token("ann"), await broker.token("bob")
            bob_id = (await broker.user("bob")).id
            nursery.start_soon(talk, url(broker), *tokens, bob_id)
            await told_one.wait()
        await lost.wait()
        async with running_broker(tmp_path, store=store, tcp__port=port):
            with trio.fail_after(20):
                await done.wait()
