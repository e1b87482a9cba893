"""Every command that a client may send has somebody who answers it."""

from __future__ import annotations

from typing import get_args

from broker.commands.opening import Opening
from broker.commands.tables import open_table, opening_table
from broker.wire.commands import OPENING, AnyCommand, Hello, Login, Register


def test_no_command_is_forgotten() -> None:
    opening = Opening.__new__(Opening)  # the tables take its methods and call none

    assert set(opening_table(opening)) == set(get_args(OPENING))
    assert set(open_table(opening)) == set(get_args(AnyCommand)) - {Hello, Login, Register}
