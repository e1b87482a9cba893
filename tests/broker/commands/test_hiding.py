"""Who hides being online is here for nobody: not in answers, not in events."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.broker import Broker, running_broker


async def test_a_hidden_peer_seems_offline(broker: Broker) -> None:
    ann = await broker.join("ann")
    ben = await broker.join("ben")
    to = {"user": (await broker.user("ben")).id}
    await ben.ok("profile.set", show_online="nobody")
    sent = await ann.ok("send", to=to, key="1", kind="text", body="there?")
    assert sent["online"] is False
    await ben.ok("profile.set", show_online="everyone")
    sent = await ann.ok("send", to=to, key="2", kind="text", body="there?")
    assert sent["online"] is True


async def test_nobody_hears_a_hidden_user_come_and_go(tmp_path: Path) -> None:
    async with running_broker(tmp_path, presence__coalesce_ms=5) as broker:
        ben, carl = await broker.user("ben"), await broker.user("carl")
        await broker.store.update_user(ben.id, {"show_online": "nobody"})
        ann = await broker.join("ann")
        await ann.ok("presence.watch", users=[ben.id, carl.id])
        await (await broker.join("ben")).aclose()
        await broker.join("carl")
        event = await ann.event("presence")
        assert [state["user"] for state in event["users"]] == [carl.id]
