"""Whatever people do to a group at once: the log alone says who received what.

Everybody fires their commands without waiting for answers. Afterwards the log, read back by the
owner, is taken as the model: a client must have received exactly the entries from each `joined` (or
`created`) that names them to the next `left` or `kicked`, both included, in order and once.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.broker.commands.people import entries_heard, seqs
from tests.helpers.broker import running_broker
from tests.helpers.peer import Map, Peer

PEOPLE = 3
OWNER = 0

moderators = st.sampled_from([OWNER, OWNER, 1, 2])
targets = st.integers(1, PEOPLE)
acts = st.one_of(
    st.tuples(st.just("send"), st.integers(0, PEOPLE), st.just(0)),
    st.tuples(st.sampled_from(["join", "leave"]), targets, st.just(0)),
    st.tuples(st.just("kick"), moderators, targets),
    st.tuples(st.sampled_from(["invite", "promote"]), moderators, targets),
)
SHORTEST, LONGEST = 15, 60
"""With fewer deeds hardly anybody comes and goes twice."""


def command(act: str, conv: str, number: int, target: int) -> tuple[str, Map]:
    match act:
        case "send":
            return "send", {"conv": conv, "key": f"k{number}", "kind": "text", "body": f"{number}"}
        case "invite":
            return "group.invite", {"conv": conv, "users": [target]}
        case "promote":
            return "group.role", {"conv": conv, "user": target, "role": "admin"}
        case "kick":
            return "group.kick", {"conv": conv, "user": target}
        case _:
            return f"group.{act}", {"conv": conv}


def visible(log: list[Map], user: int) -> list[int]:
    """The seqs that a user's connection must have received."""
    seen = []
    inside = False
    for entry in log:
        change = entry["body"] if entry["kind"] == "system" else {"event": "", "users": []}
        concerned = user in change["users"]
        if concerned and change["event"] in ("created", "joined"):
            assert not inside, "became a member twice"
            inside = True
        if inside:
            seen.append(entry["seq"])
        else:
            assert entry["from"] != user or concerned, "spoke from outside"
        if concerned and change["event"] in ("left", "kicked"):
            assert inside, "went without having been there"
            inside = False
    return seen


async def play(peer: Peer, script: list[tuple[str, Map]], replies: list[tuple[str, Map]]) -> None:
    ids = [(name, await peer.send(name, **fields)) for name, fields in script]
    replies += [(name, await peer.reply(id)) for name, id in ids]


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    deeds=st.lists(acts, min_size=SHORTEST, max_size=LONGEST),
    first=st.sets(st.integers(1, PEOPLE)),
    history=st.sampled_from(["all", "joined"]),
)
async def test_everybody_receives_what_the_log_says(
    deeds: list[tuple[str, int, int]], first: set[int], history: str
) -> None:
    with TemporaryDirectory() as data:
        async with running_broker(Path(data)) as broker:
            peers = [await broker.join(f"user {n}") for n in range(PEOPLE + 1)]
            owner = peers[OWNER]
            conv = (
                await owner.ok(
                    "group.create",
                    title="x",
                    join="open",
                    visibility="public",
                    history=history,
                    members=[peers[n].user for n in sorted(first)],
                )
            )["conv"]
            scripts: list[list[tuple[str, Map]]] = [[] for _ in peers]
            for number, (act, who, target) in enumerate(deeds):
                scripts[who].append(command(act, conv, number, peers[target].user))
            replies: list[tuple[str, Map]] = []

            async with trio.open_nursery() as nursery:
                for peer, script in zip(peers, scripts, strict=True):
                    nursery.start_soon(play, peer, script, replies)

            assert not [r for _, r in replies if r.get("code") in ("internal", "unavailable")]
            log = (await owner.ok("history", conv=conv, after=0, limit=200))["entries"]
            assert seqs(log) == list(range(1, len(log) + 1))
            sent = [reply["seq"] for name, reply in replies if name == "send" and "seq" in reply]
            assert sorted(sent) == [entry["seq"] for entry in log if entry["kind"] == "text"]
            for peer in peers:
                received = seqs(await entries_heard(peer))
                assert received == visible(log, peer.user)
                await check_reading(peer, conv, log, history)


async def check_reading(peer: Peer, conv: str, log: list[Map], history: str) -> None:
    """Who is in at the end may read the log, from their last joining where that is the rule."""
    inside = visible(log, peer.user)[-1:] == [log[-1]["seq"]] and not (
        log[-1]["kind"] == "system"
        and log[-1]["body"]["event"] in ("left", "kicked")
        and peer.user in log[-1]["body"]["users"]
    )
    reply = await peer.ask("history", conv=conv, after=0, limit=200)
    synced = (await peer.ok("sync"))["conversations"]
    if not inside:
        assert (reply.get("code"), synced) == ("forbidden", [])
        return
    since = max(
        entry["seq"]
        for entry in log
        if entry["kind"] == "system"
        and entry["body"]["event"] in ("created", "joined")
        and peer.user in entry["body"]["users"]
    )
    start = since if history == "joined" else 1
    assert seqs(reply["entries"]) == list(range(start, len(log) + 1))
    assert seqs(synced[0]["entries"]) == seqs(reply["entries"])
