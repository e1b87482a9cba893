"""Where the copies of a keyspace really are, and whether it is safe to use them as the URL says.

Two nodes of a broker must never both win a conditional write, and what one has acknowledged the
others must read. That hangs on the keyspace as it is, not on what the URL says of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cassandra.cluster import Cluster
from cassandra.metadata import NetworkTopologyStrategy, SimpleStrategy

from storage.cassandra.settings import CassandraSettings
from storage.errors import UnsafeSettings


def checked_place(cluster: Cluster, settings: CassandraSettings) -> str:
    """The data centre that conditional writes are decided in, or "" for all of them together.

    The cluster is connected, and has the keyspace. Raises `UnsafeSettings`.
    """
    strategy = cluster.metadata.keyspaces[settings.keyspace].replication_strategy
    centres = _data_centres(cluster, strategy)
    if problem := _problem(settings, _copies(cluster, strategy), centres):
        raise UnsafeSettings(f"{settings.where}: {problem}")
    if len(centres) == 1:
        return centres[0]
    return settings.dc if settings.is_local else ""


def check_replication(cluster: Cluster, settings: CassandraSettings) -> None:
    """Raise `UnsafeSettings` where the settings ask for other copies than the keyspace has.

    It is not changed: until a repair has made the new copies, reads might miss what was written,
    and when that is bearable only an operator knows.
    """
    strategy = cluster.metadata.keyspaces[settings.keyspace].replication_strategy
    nodes = {host.datacenter for host in cluster.metadata.all_hosts()}
    asked = {
        dc: copies for name, copies in settings.replication for dc in ([name] if name else nodes)
    }
    if isinstance(strategy, NetworkTopologyStrategy):
        there = {dc: n for dc, n in strategy.dc_replication_factors.items() if n}
    else:
        there = dict.fromkeys(nodes, _copies(cluster, strategy))
    if asked and asked != there:
        # By their names: what is asked of all leaves those alone that have copies already.
        alter = f"ALTER KEYSPACE {settings.keyspace} WITH replication = {as_cql(asked.items())}"
        raise UnsafeSettings(
            f"{settings.where}: replication: the keyspace has {_shown(there)}, and the URL asks for"
            f" {_shown(asked)}. Nothing was changed. Either name what is there, or stop the"
            f" brokers, run `{alter}` and then `nodetool repair --full {settings.keyspace}` on each"
            " node"
        )


def as_cql(copies: Iterable[tuple[str, int]]) -> str:
    """Copies by data centre; the name "" is every one that has none yet."""
    named = ", ".join(f"'{dc or 'replication_factor'}': {number}" for dc, number in copies)
    return f"{{'class': 'NetworkTopologyStrategy', {named}}}"


def _shown(copies: Mapping[str, int]) -> str:
    """As the URL has it."""
    return ",".join(f"{dc}:{number}" for dc, number in sorted(copies.items()))


def _problem(settings: CassandraSettings, copies: int, centres: list[str]) -> str:
    level, dc = settings.consistency, settings.dc
    names = ", ".join(centres)
    if copies > 1 and not settings.is_majority:
        return (
            f"consistency: with {level} and {copies} copies of each row, a read may ask another"
            " copy than the one that a write is on: name a quorum, as LOCAL_QUORUM"
        )
    if not settings.is_local:
        return ""
    if not dc and len(centres) > 1:
        return (
            f"dc: is missing, and the keyspace is in several data centres ({names}): with {level}"
            " each would decide for itself who has a lease or a name"
        )
    if dc and dc not in centres:
        return f"dc: no copy of the keyspace is in {dc}, but in {names}"
    return ""


def _copies(cluster: Cluster, strategy: Any) -> int:
    """Of each row, everywhere."""
    if isinstance(strategy, NetworkTopologyStrategy):
        return sum(int(copies) for copies in strategy.dc_replication_factors.values())
    if isinstance(strategy, SimpleStrategy):
        return int(strategy.replication_factor)
    # A strategy of the operator's own: at worst, a copy on every node.
    return len(cluster.metadata.all_hosts())


def _data_centres(cluster: Cluster, strategy: Any) -> list[str]:
    """Those with copies, or that may have some."""
    if isinstance(strategy, NetworkTopologyStrategy):
        return sorted(dc for dc, copies in strategy.dc_replication_factors.items() if copies)
    return sorted({host.datacenter for host in cluster.metadata.all_hosts() if host.datacenter})
