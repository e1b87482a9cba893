"""What every timeline must do: logs, and the members, groups and marks that move in their order."""

from __future__ import annotations

import pytest
import trio

from storage.interfaces import Store
from storage.records import Append, Commit, Head, Mark, Member, Revision, Settings
from tests.conformance.making import append, appending, group, payload, payloads, user


async def test_what_was_committed_is_read_back_in_order(store: Store) -> None:
    await store.commit(appending("g/1", 1, 3))
    await store.commit(appending("g/1", 4, 4))
    assert await store.read("g/1", limit=10) == payloads(1, 4)
    assert await store.heads(["g/1", "g/2"]) == {"g/1": Head(seq=4, ts=1004), "g/2": Head()}


@pytest.mark.parametrize(
    ("after", "before", "limit", "expected"),
    [
        (None, None, 3, (18, 20)),
        (None, None, 100, (1, 20)),
        (0, None, 3, (1, 3)),
        (7, None, 4, (8, 11)),
        (19, None, 4, (20, 20)),
        (20, None, 4, None),
        (99, None, 4, None),
        (None, 21, 2, (19, 20)),
        (None, 99, 2, (19, 20)),
        (None, 8, 3, (5, 7)),
        (None, 3, 10, (1, 2)),
        (None, 1, 10, None),
        (None, 0, 10, None),
        (5, 9, 10, (6, 8)),
        (5, 9, 2, (6, 7)),
        (5, 6, 10, None),
        (9, 5, 10, None),
        (5, 9, 0, None),
        (None, None, 0, None),
    ],
)
async def test_windows(
    store: Store,
    after: int | None,
    before: int | None,
    limit: int,
    expected: tuple[int, int] | None,
) -> None:
    for first, last in [(1, 1), (2, 6), (7, 7), (8, 15), (16, 20)]:
        await store.commit(appending("g/1", first, last))
    wanted = payloads(*expected) if expected else []
    assert await store.read("g/1", after=after, before=before, limit=limit) == wanted


async def test_an_unknown_conversation_is_empty(store: Store) -> None:
    assert await store.read("g/404", limit=5) == []
    assert await store.read("g/404", after=0, limit=5) == []
    assert await store.members("g/404", after=0, limit=5) == []
    assert await store.settings(5, "g/404") is None
    assert await store.memberships(404) == []
    loaded = (await store.load(["g/404"], 5))["g/404"]
    assert (loaded.head, loaded.tail, loaded.members, loaded.marks) == (Head(), [], [], [])
    assert loaded.group is None


@pytest.mark.parametrize(
    "wrong",
    [
        Append(conv="g/1", first=2, payloads=[payload(2)], ts=1),
        Append(conv="g/1", first=4, payloads=[payload(4)], ts=1),
        Append(conv="g/1", first=0, payloads=[payload(0)], ts=1),
        Append(conv="g/1", first=3, payloads=[], ts=1),
        Append(conv="g/9", first=2, payloads=[payload(2)], ts=1),
    ],
    ids=["overlap", "gap", "zero", "nothing", "no start"],
)
async def test_a_refused_commit_leaves_nothing(store: Store, wrong: Append) -> None:
    await store.commit(appending("g/1", 1, 2))
    with pytest.raises(ValueError, match=wrong.conv):
        await store.commit(
            Commit(
                appends=[append("g/2", 1, 1), append("d/1/2", 1, 1), wrong],
                members=[Member(conv="g/2", user=5)],
                marks=[Mark(conv="g/1", user=5, read=1)],
                groups=[group(2)],
            )
        )
    assert await store.heads(["g/1", "g/2", "d/1/2"]) == {
        "g/1": Head(seq=2, ts=1002),
        "g/2": Head(),
        "d/1/2": Head(),
    }
    assert await store.groups([2]) == {}
    assert await store.memberships(5) == await store.memberships(1) == []
    assert (await store.load(["g/1"], 9))["g/1"].marks == []
    # And the store goes on where it was.
    await store.commit(appending("g/1", 3, 3))
    await store.commit(appending("g/2", 1, 1))
    assert await store.read("g/1", limit=9) == payloads(1, 3)


async def test_one_commit_may_append_to_a_conversation_twice(store: Store) -> None:
    await store.commit(Commit(appends=[append("g/1", 1, 2), append("g/1", 3, 3)]))
    assert await store.read("g/1", limit=9) == payloads(1, 3)


async def test_a_revision_changes_what_is_read_and_nothing_else(store: Store) -> None:
    await store.commit(appending("g/1", 1, 5))
    longer, shorter = payload(2, "x" * 5000), payload(4, "")
    await store.commit(
        Commit(
            appends=[append("g/1", 6, 6)],
            revisions=[
                Revision(conv="g/1", seq=2, payload=longer),
                Revision(conv="g/1", seq=4, payload=shorter),
                Revision(conv="g/1", seq=6, payload=payload(6, "at once")),
            ],
        )
    )
    expected = [payload(1), longer, payload(3), shorter, payload(5), payload(6, "at once")]
    assert await store.read("g/1", limit=9) == expected
    assert (await store.load(["g/1"], 9))["g/1"].tail == expected
    assert (await store.heads(["g/1"]))["g/1"] == Head(seq=6, ts=1006)


@pytest.mark.parametrize("seq", [0, -1, 3])
async def test_a_revision_of_nothing_is_refused(store: Store, seq: int) -> None:
    await store.commit(appending("g/1", 1, 2))
    with pytest.raises(ValueError, match="g/1"):
        await store.commit(
            Commit(
                appends=[append("g/2", 1, 1)],
                revisions=[Revision(conv="g/1", seq=seq, payload=payload(1))],
            )
        )
    assert (await store.heads(["g/2"]))["g/2"] == Head()


async def test_long_appends_and_large_payloads(store: Store) -> None:
    """Longer than any chunk, and with single payloads larger than one."""
    many = payloads(1, 700)
    large = [payload(seq, "x" * 100_000) for seq in range(701, 708)]
    huge = [payload(708, "x" * 400_000), payload(709)]
    await store.commit(Commit(appends=[Append("g/1", 1, many, 1), Append("g/1", 701, large, 1)]))
    await store.commit(Commit(appends=[Append("g/1", 708, huge, 1)]))
    assert await store.read("g/1", limit=1000) == many + large + huge
    assert await store.read("g/1", after=254, limit=4) == many[254:258]
    assert await store.read("g/1", before=706, limit=2) == large[3:5]
    grown = payload(300, "y" * 300_000)
    await store.commit(Commit(revisions=[Revision("g/1", 300, grown)]))
    assert await store.read("g/1", after=298, before=302, limit=9) == [
        payload(299),
        grown,
        payload(301),
    ]
    await store.commit(appending("g/1", 710, 710))
    assert len(await store.read("g/1", after=0, limit=1000)) == 710


async def test_direct_conversations_have_the_members_of_their_name(store: Store) -> None:
    ana, _ = await store.create_users([user("ana"), user("bo")], [None, None])
    conv = f"d/{ana.id}/404"
    loaded = (await store.load([conv], 9))[conv]
    assert loaded.members == [Member(conv=conv, user=ana.id), Member(conv=conv, user=404)]
    assert loaded.missing_users == [404]
    assert await store.memberships(ana.id) == []
    await store.commit(appending(conv, 1, 1))
    assert [m.conv for m in await store.memberships(ana.id)] == [conv]
    assert [m.conv for m in await store.memberships(404)] == [conv]
    assert await store.members(conv, after=ana.id, limit=9) == [Member(conv=conv, user=404)]


async def test_a_conversation_with_oneself(store: Store) -> None:
    await store.commit(appending("d/7/7", 1, 1))
    assert [m.conv for m in await store.memberships(7)] == ["d/7/7"]
    assert (await store.load(["d/7/7"], 1))["d/7/7"].missing_users == [7]


async def test_nobody_is_put_into_or_out_of_a_direct_conversation(store: Store) -> None:
    await store.commit(appending("d/1/2", 1, 1))
    await store.commit(Commit(members=[Member("d/1/2", 3)], gone=[("d/1/2", 1)]))
    assert [m.user for m in await store.members("d/1/2", after=0, limit=9)] == [1, 2]
    assert [m.conv for m in await store.memberships(1)] == ["d/1/2"]
    assert await store.memberships(3) == []


async def test_members_come_change_and_go(store: Store) -> None:
    await store.commit(
        Commit(
            appends=[append("g/1", 1, 2)],
            groups=[group(1)],
            members=[Member("g/1", 9, "owner", 1), Member("g/1", 5, "member", 2)],
        )
    )
    assert await store.members("g/1", after=0, limit=9) == [
        Member("g/1", 5, "member", 2),
        Member("g/1", 9, "owner", 1),
    ]
    assert await store.members("g/1", after=5, limit=1) == [Member("g/1", 9, "owner", 1)]
    assert await store.members("g/1", after=0, limit=1) == [Member("g/1", 5, "member", 2)]
    await store.commit(
        Commit(members=[Member("g/1", 5, "admin", 2)], gone=[("g/1", 9), ("g/1", 77)])
    )
    loaded = (await store.load(["g/1"], 0))["g/1"]
    assert loaded.members == [Member("g/1", 5, "admin", 2)]
    assert loaded.group == group(1)
    assert await store.memberships(9) == []
    assert [m.role for m in await store.memberships(5)] == ["admin"]


async def test_who_left_and_came_back_in_one_commit_is_in(store: Store) -> None:
    await store.commit(Commit(members=[Member("g/1", 5, "owner", 1)]))
    await store.commit(Commit(gone=[("g/1", 5)], members=[Member("g/1", 5, "member", 4)]))
    assert await store.members("g/1", after=0, limit=9) == [Member("g/1", 5, "member", 4)]


async def test_marks_only_move_forward(store: Store) -> None:
    await store.commit(Commit(marks=[Mark("g/1", 5, read=3, delivered=4), Mark("g/1", 4, read=1)]))
    repeated = Commit(marks=[Mark("g/1", 5, read=2, delivered=6), Mark("g/1", 5, read=1)])
    await store.commit(repeated)
    await store.commit(repeated)
    loaded = (await store.load(["g/1"], 0))["g/1"]
    assert loaded.marks == [Mark("g/1", 4, 1, 0), Mark("g/1", 5, 3, 6)]


async def test_who_has_seen_nothing_yet_has_a_mark_too(store: Store) -> None:
    for _ in range(2):
        await store.commit(Commit(marks=[Mark("g/1", 5)]))
        assert (await store.load(["g/1"], 0))["g/1"].marks == [Mark("g/1", 5, 0, 0)]


async def test_memberships_tell_all_that_a_list_needs(store: Store) -> None:
    mine = Settings(conv="g/1", user=5, muted=True, nickname="Zoë \U0001f680", draft="…")
    await store.commit(
        Commit(
            appends=[append("g/1", 1, 4), append("d/5/9", 1, 1)],
            groups=[group(1, "Tea", avatar="cup", history="joined")],
            members=[Member("g/1", 5, "admin", 2), Member("g/1", 6)],
            marks=[Mark("g/1", 5, 3, 4), Mark("g/1", 6, 1, 1)],
        )
    )
    await store.put_settings(mine)
    direct, tea = sorted(await store.memberships(5), key=lambda m: m.conv)
    assert (tea.conv, tea.role, tea.since, tea.head) == ("g/1", "admin", 2, Head(seq=4, ts=1004))
    assert (tea.read, tea.delivered, tea.settings) == (3, 4, mine)
    assert (tea.title, tea.avatar, tea.history) == ("Tea", "cup", "joined")
    assert (direct.conv, direct.role, direct.since) == ("d/5/9", "member", 0)
    assert (direct.read, direct.settings, direct.title, direct.history) == (0, None, "", "all")


async def test_memberships_past_a_cursor_have_all_that_moved_with_their_groups(
    store: Store,
) -> None:
    await store.commit(
        Commit(
            appends=[append("g/1", 1, 4), append("g/2", 1, 2), append("d/5/9", 1, 1)],
            groups=[group(1, "Tea"), group(2, "Cake")],
            members=[Member("g/1", 5), Member("g/2", 5)],
        )
    )
    past = {"g/1": 3, "g/2": 2}
    found = {m.conv: (m.head.seq, m.title) for m in await store.memberships(5, past=past)}
    assert found.pop("g/2", (2, "Cake")) == (2, "Cake"), "this one may be there"
    assert found == {"g/1": (4, "Tea"), "d/5/9": (1, "")}


async def test_settings_are_replaced(store: Store) -> None:
    await store.put_settings(Settings(conv="d/5/9", user=5, pinned=True, draft="a\0b"))
    assert (await store.settings(5, "d/5/9")) == Settings(
        conv="d/5/9", user=5, pinned=True, draft="a\0b"
    )
    await store.put_settings(Settings(conv="d/5/9", user=5, hidden=37))
    assert (await store.settings(5, "d/5/9")) == Settings(conv="d/5/9", user=5, hidden=37)
    assert await store.settings(9, "d/5/9") is None


async def test_group_ids_are_never_given_twice(store: Store) -> None:
    first = await store.next_group_id()
    await store.commit(Commit(groups=[group(first + 40)]))
    second = await store.next_group_id()
    third = await store.next_group_id()
    assert first >= 1
    assert first + 40 < second < third


async def test_groups_are_found_by_any_part_of_their_title(store: Store) -> None:
    await store.commit(
        Commit(
            groups=[
                group(1, "Grüne STRASSE"),
                group(2, "straße", visibility="private"),
                group(3, "Straßenfest", dissolved=9),
                group(4, "straßenmusik", kind="room"),
                group(5, "100%_safe\\"),
            ],
            members=[Member("g/4", user) for user in (1, 2, 3)],
        )
    )
    found = await store.find_groups("Straße", after=0, limit=9)
    assert [(g.id, count) for g, count in found] == [(1, 0), (4, 3)]
    assert [g.id for g, _ in await store.find_groups("", after=1, limit=1)] == [4]
    assert [g.id for g, _ in await store.find_groups("%_", after=0, limit=9)] == [5]
    assert [g.id for g, _ in await store.find_groups("_", after=0, limit=9)] == [5]
    assert await store.find_groups("", after=0, limit=0) == []


async def test_groups_are_read_with_their_count_also_when_dissolved(store: Store) -> None:
    await store.commit(Commit(groups=[group(3)], members=[Member("g/3", 1), Member("g/3", 2)]))
    await store.commit(Commit(groups=[group(3, "Gone", dissolved=5)], gone=[("g/3", 1)]))
    assert await store.groups([3, 4]) == {3: (group(3, "Gone", dissolved=5), 1)}


async def test_many_are_loaded_at_once_and_each_gets_its_own(store: Store) -> None:
    convs = [f"g/{n}" for n in range(1, 60)]
    await store.commit(Commit(appends=[append(conv, 1, n) for n, conv in enumerate(convs, 1)]))
    results: dict[str, list[bytes]] = {}

    async def load(conv: str, tail: int) -> None:
        loaded = await store.load([conv, "g/1"], tail)
        assert set(loaded) == {conv, "g/1"}
        loaded["g/1"].members.append(Member("g/1", 666))
        results[conv] = loaded[conv].tail

    async with trio.open_nursery() as nursery:
        for n, conv in enumerate(convs, 1):
            nursery.start_soon(load, conv, 1 + n % 7)
    for n, conv in enumerate(convs, 1):
        assert results[conv] == payloads(1, n)[-(1 + n % 7) :]
    assert (await store.load(["g/1"], 1))["g/1"].members == []


async def test_no_reference_is_kept_to_what_was_given_or_returned(store: Store) -> None:
    tea, owner = group(1), Member("g/1", 5, "owner", 1)
    entries = append("g/1", 1, 1)
    mine = Settings(conv="g/1", user=5)
    await store.commit(Commit(appends=[entries], groups=[tea], members=[owner]))
    await store.put_settings(mine)
    tea.title, owner.role, mine.draft = "Coffee", "member", "changed"
    entries.payloads.append(b"\x01")
    for _ in range(2):
        loaded = (await store.load(["g/1"], 9))["g/1"]
        assert loaded.group is not None
        assert (loaded.group.title, loaded.members[0].role) == ("Tea", "owner")
        assert loaded.tail == payloads(1, 1)
        loaded.group.title, loaded.members[0].role = "Cocoa", "member"
        loaded.tail.clear()
        kept = await store.settings(5, "g/1")
        assert kept is not None
        assert kept.draft == ""
        kept.draft = "changed"
