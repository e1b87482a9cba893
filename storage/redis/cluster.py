"""The way through a Redis Cluster: each command to the node that has its key's slot.

Blocking, for one thread. A node that fails takes only its own commands with it, and is left alone
for a moment; redirections are followed, and the map of slots is read anew after a surprise.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from time import monotonic

import hiredis

from storage.errors import Unavailable
from storage.redis.link import Answer, Command, Link
from storage.redis.settings import Address, RedisSettings

REDIRECTIONS_MAX = 3
"""How often a command is sent on; then its answer is the redirection, which is an error."""

LEFT_ALONE_S = 5.0
"""How long a node that failed is not tried again: its commands fail at once."""

RELEARN_S = 0.1
"""The map of slots is read no more often than this, however many surprises there are."""

CLUSTER_SLOTS = 16_384

_REDIRECTIONS = ("MOVED ", "ASK ")
_SCRIPTS = frozenset({b"EVAL", b"EVALSHA"})


def slot_of(key: bytes) -> int:
    """The slot of a key: of the part in its first braces, if there is one."""
    start = key.find(b"{")
    if start >= 0 and (end := key.find(b"}", start + 1)) > start + 1:
        key = key[start + 1 : end]
    return crc_hqx(key, 0) % CLUSTER_SLOTS


class ClusterRoute:
    """`storage.redis.routes.Route`. Keys are bytes: a command's first word, a script's third."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._links: dict[Address, Link] = {}
        self._failed: dict[Address, tuple[float, Unavailable]] = {}
        self._owners: dict[int, Address] = {}
        self._stale = False
        self._learnt_at = 0.0
        self.interruptions = 0
        self._learn()

    def exchange(self, commands: Sequence[Command]) -> list[Answer]:
        if self._stale and monotonic() - self._learnt_at >= RELEARN_S:
            self._learn()
        answers: list[Answer] = [None] * len(commands)
        left = {index: self._owner(command) for index, command in enumerate(commands)}
        asking = False
        for _ in range(REDIRECTIONS_MAX + 1):
            self._round(commands, left, answers, asking=asking)
            left, asking = self._redirected(left, answers)
            if not left:
                break
        return answers

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()

    def _round(
        self,
        commands: Sequence[Command],
        where: dict[int, Address],
        answers: list[Answer],
        *,
        asking: bool,
    ) -> None:
        """Send each of these to its node, all nodes at once, and put down the answers."""
        shares: dict[Address, list[int]] = {}
        for index, address in where.items():
            shares.setdefault(address, []).append(index)
        ahead: list[Command] = [(b"ASKING",)] if asking else []
        sent: list[tuple[Address, Link, list[int]]] = []
        for address, indexes in shares.items():
            try:
                link = self._link(address)
                link.send([word for index in indexes for word in (*ahead, commands[index])])
                sent.append((address, link, indexes))
            except Unavailable as error:
                self._fail(address, error, indexes, answers)
        each = 2 if asking else 1
        for address, link, indexes in sent:
            try:
                got = link.answers(len(indexes) * each)[each - 1 :: each]
            except Unavailable as error:
                self._fail(address, error, indexes, answers)
            else:
                for index, answer in zip(indexes, got, strict=True):
                    answers[index] = answer

    def _redirected(
        self, sent: dict[int, Address], answers: list[Answer]
    ) -> tuple[dict[int, Address], bool]:
        """Those whose answer is to go elsewhere, and whether only for this once.

        Never both kinds: those for once have their turn when the others are done.
        """
        moved: dict[int, Address] = {}
        asked: dict[int, Address] = {}
        for index, address in sent.items():
            answer = answers[index]
            if isinstance(answer, hiredis.ReplyError):
                text = str(answer)
                self._stale |= text.startswith(("MOVED ", "CLUSTERDOWN", "READONLY", "MASTERDOWN"))
                if text.startswith(_REDIRECTIONS):
                    into = moved if text.startswith("MOVED") else asked
                    into[index] = redirection(text, address)
        if moved and asked:
            for index in asked:
                moved[index] = sent[index]
        return (moved, False) if moved else (asked, True)

    def _owner(self, command: Command) -> Address:
        key = command[3 if command[0] in _SCRIPTS else 1]
        assert isinstance(key, bytes)
        owner = self._owners.get(slot_of(key))
        # A slot that nobody has: any node says so.
        return owner if owner is not None else next(iter(self._owners.values()))

    def _link(self, address: Address) -> Link:
        if (link := self._links.get(address)) is not None:
            return link
        until, error = self._failed.get(address, (0.0, None))
        if error is not None and monotonic() < until:
            raise Unavailable(str(error))
        self._links[address] = link = Link(self._settings, address)
        if self._failed.pop(address, None) is not None:
            self.interruptions += 1
        return link

    def _fail(
        self, address: Address, error: Unavailable, indexes: list[int], answers: list[Answer]
    ) -> None:
        self._stale = True
        if (link := self._links.pop(address, None)) is not None:
            link.close()
            self.interruptions += 1
        until, _ = self._failed.get(address, (0.0, None))
        if monotonic() >= until:
            self._failed[address] = (monotonic() + LEFT_ALONE_S, error)
        for index in indexes:
            answers[index] = error

    def _learn(self) -> None:
        """Read the map of slots from any node. Raises `Unavailable` if none has it."""
        last: Unavailable | None = None
        for address in dict.fromkeys(
            [*self._links, *self._owners.values(), *self._settings.addresses]
        ):
            try:
                (rows,) = self._link(address).exchange([(b"CLUSTER", b"SLOTS")])
            except Unavailable as error:
                self._fail(address, error, [], [])
                last = error
                continue
            if isinstance(rows, list) and rows:
                self._take_in(rows, address)
                return
            last = Unavailable(f"Redis at {address[0]}:{address[1]} has no map of slots: {rows}")
        raise last or Unavailable("no node of the Redis Cluster is known")

    def _take_in(self, rows: list[Answer], told_by: Address) -> None:
        owners: dict[int, Address] = {}
        for first, last, (host, port, *_), *_ in rows:
            address = ((host or b"").decode() or told_by[0], port)
            owners.update(dict.fromkeys(range(first, last + 1), address))
        known = set(owners.values())
        for gone in self._links.keys() - known:
            self._links.pop(gone).close()
        self._failed = {at: failure for at, failure in self._failed.items() if at in known}
        self._owners = owners
        self._stale = False
        self._learnt_at = monotonic()


def redirection(text: str, asked: Address) -> Address:
    """Where ``MOVED slot host:port`` points; without a host, to the one that was asked."""
    host, _, port = text.split()[2].rpartition(":")
    return host or asked[0], int(port)


def subscribe_in_cluster(settings: RedisSettings, channels: Sequence[bytes]) -> Link:
    """A connection that has subscribed to these sharded channels, of one slot.

    Raises `Unavailable`.
    """
    last: Unavailable | None = None
    for seed in settings.addresses:
        address = seed
        for _ in range(REDIRECTIONS_MAX):
            try:
                link = Link(settings, address)
                answer = _subscribed(link, channels)
            except Unavailable as error:
                last = error
                break
            if answer is None:
                return link
            link.close()
            last = Unavailable(f"Redis at {address[0]}:{address[1]}: {answer}")
            if not str(answer).startswith("MOVED "):
                break
            address = redirection(str(answer), address)
    raise last or Unavailable("no node of the Redis Cluster is known")


def _subscribed(link: Link, channels: Sequence[bytes]) -> hiredis.ReplyError | None:
    """Subscribe; None if that worked."""
    link.send([(b"SSUBSCRIBE", *channels)])
    answer = link.answers(1)[0]
    return answer if isinstance(answer, hiredis.ReplyError) else None
