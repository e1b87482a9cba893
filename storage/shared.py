"""What the nodes of one cluster share beside the logs, as contracts; tests/conformance holds them.

Leases say who is there and who writes what. Presence says who is connected where. The bus carries
words between nodes. Ephemeral state is what may be forgotten without harm. All methods that wait
may raise `storage.errors.Unavailable`, and a cancelled call may or may not have happened. Times
that decide anything are the caller's own monotonic ones: no clock of another machine is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from storage.records import NodeRecord, SlotRecord


class Leases(Protocol):
    """Nodes and slots. Strictly consistent: what one call has returned, every later one sees.

    A node lives while its record is there. Beating and removing are conditional on the same value,
    so that of a node that beats and another that holds it for dead, exactly one has its way.
    """

    async def beat(self, record: NodeRecord) -> bool:
        """Write a node's record in the place of the one whose `beat` is one lower.

        The first has `beat` 1 and takes the place of none. False: that is not there (any more), so
        this incarnation is dead for ever. Writing the same beat twice is no harm, and doubts have
        been looked up, as for `claim`. A record that nobody writes for a day may vanish.
        """

    async def nodes(self) -> list[NodeRecord]:
        """All records, in any order."""

    async def remove(self, incarnation: str, beat: int) -> bool:
        """Remove a record if its `beat` is still this. True: it is not there now.

        By the node itself when it leaves; by others when they have seen its beat stand still for
        the time of a lease.
        """

    async def slots(self) -> list[SlotRecord]:
        """All `SLOTS` of them, in order; those that were never claimed too."""

    async def claim(self, wanted: Sequence[SlotRecord]) -> list[SlotRecord]:
        """Make each slot's record what is wanted, if its stored epoch is still `wanted.epoch - 1`.

        Returns the records as they are now, in the order asked for: it worked where the two are
        equal. Whatever was in doubt has been looked up; where that cannot be done, or a slot is
        found as it was, raises `Unavailable`, and nothing is known: it may yet be written. What is
        claimed next under the same epoch decides.
        """

    async def agree(self, name: str, value: str) -> str:
        """Keep `value` under `name` unless something is kept there; returns what is kept, for good.

        Whoever asks first decides for all nodes; no node ever changes or removes it. An operator
        may, while none runs (docs/operations.md).
        """


class PresenceStore(Protocol):
    """Which users have a session on which node. An entry counts while its node is kept alive."""

    async def keep_alive(self, incarnation: str, ttl_ms: int) -> bool:
        """Let the node's entries count for this long from now.

        False: its entries are lost or were never written (or had run out): write them all again.
        """

    async def update(self, incarnation: str, *, here: Iterable[int], gone: Iterable[int]) -> None:
        """These users have a session on the node now; those have none any more."""

    async def online(self, users: Iterable[int]) -> set[int]:
        """Those among these who have a session on any living node."""

    async def forget(self, incarnation: str) -> None:
        """The node has left: its entries count no more."""


class Bus(Protocol):
    """Words from node to node: each has an inbox, named by its incarnation.

    Messages of one sender to one inbox arrive in order and unaltered, or not at all: any may be
    lost, without a notice, for as long as the bus is away and a little longer.
    """

    def send(self, to: str, data: bytes) -> bool:
        """Send without waiting. False: certainly lost (too much waits already, or it is away)."""

    async def receive(self) -> list[bytes]:
        """Everything that has come since the last call, at least one message, in order.

        Raises nothing while the bus is away; it just does not return.
        """


class Ephemeral(Protocol):
    """Counters, codes and a claim that every node sees. All may vanish at any time."""

    async def claim(self, cluster: str) -> str:
        """Say that this is the cluster's, unless another has said so; returns whose it is.

        Where that has vanished, whoever claims first has it.
        """

    async def wait_ms(self, what: str, who: str, *, per_minute: int) -> int:
        """Take one from a bucket that holds `per_minute` and gains as many a minute.

        0, or (nothing taken) in how many milliseconds there will be one.
        """

    async def put_code(self, name: str, code: str, *, ttl_ms: int, tries: int) -> None:
        """Keep a code in the place of any other of that name."""

    async def try_code(self, name: str, code: str) -> bool:
        """Whether this is the code. A right one is used up; each wrong one costs a try, and with
        the last the code is gone."""
