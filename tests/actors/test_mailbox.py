"""A bounded mailbox: in order, all at once, and it says when it is full."""

from __future__ import annotations

from actors.mailbox import Mailbox


def test_what_is_put_is_taken_in_order() -> None:
    mailbox: Mailbox[int] = Mailbox(3)
    assert [mailbox.put(n) for n in range(4)] == [True, True, True, False]
    assert len(mailbox) == 3

    assert mailbox.take() == [0, 1, 2]
    assert mailbox.take() == []
    assert mailbox.put(4)


def test_what_was_taken_can_be_put_back_before_the_rest() -> None:
    mailbox: Mailbox[int] = Mailbox(3)
    mailbox.put(3)
    mailbox.put_back([1, 2])
    assert mailbox.take() == [1, 2, 3]


def test_statistics_are_a_picture_of_the_moment() -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    mailbox.put(1)
    mailbox.put(2)
    before = mailbox.statistics()
    mailbox.take()
    assert (before.waiting, before.limit, before.refused) == (1, 1, 1)
    assert mailbox.statistics().waiting == 0
