"""`parley cluster status`: the nodes of a cluster and what they own, as the store knows them.

It asks no node, so it also tells of those that do not answer any more, and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import click
import msgspec
import trio
from msgspec import Struct
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from broker.cli.options import with_config
from broker.config import Config
from broker.config_sources import Loaded
from broker.stores import open_leases
from storage.records import NodeRecord
from storage.shared import Leases

LOOK_EVERY_S = 0.25
"""While a node's beat stands still, for at most a lease."""
MIN_WIDTH_COLUMNS = 120
"""Of what is no terminal: its lines may be longer than a screen's."""

State = Literal["alive", "draining", "dead"]


class NodeStatus(Struct):
    """A node, seen from outside. `beat_age_ms`: how long its beat has stood still as we looked."""

    node: str
    incarnation: str
    state: State
    beat_age_ms: int
    http: str
    tcp: str
    started: int
    connections: int
    conversations: int
    lag_ms: int
    slots: int


class ClusterStatus(Struct):
    """`slots_unowned` belong to nobody who lives; they wait for a claim."""

    nodes: list[NodeStatus]
    slots: int
    slots_unowned: int


@click.group("cluster", short_help="Look at the nodes of a cluster.")
def command() -> None:
    """Look at the nodes of a cluster."""


@command.command("status", short_help="Show nodes, slots, beats and lag.")
@with_config()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(loaded: Loaded, as_json: bool) -> None:
    """Show nodes, slots, beats and lag.

    Whether a node lives is seen by its beat, which moves several times in a lease: it is looked at
    until each has moved, at most for the time of a lease: the node's own, or cluster.lease_ms here,
    whichever is longer.
    """
    seen = trio.run(_look, loaded.config)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(seen)).decode())
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=MIN_WIDTH_COLUMNS)
    console.print(table_of(seen))
    console.print(f"{seen.slots} slots, {seen.slots_unowned} of them owned by nobody who lives")


async def _look(config: Config) -> ClusterStatus:
    async with open_leases(config) as leases:
        return await observe(leases, config.cluster.lease_ms / 1000)


async def observe(leases: Leases, lease_s: float) -> ClusterStatus:
    """Look at the nodes until each beat has moved, or a lease is over. Raises `Unavailable`."""
    began = trio.current_time()
    first = {record.incarnation: record for record in await leases.nodes()}
    lease_s = max([lease_s, *(record.lease_ms / 1000 for record in first.values())])
    now = first
    moved: dict[str, float] = {}
    while now.keys() - moved.keys() and trio.current_time() - began < lease_s:
        await trio.sleep(LOOK_EVERY_S)
        now = {record.incarnation: record for record in await leases.nodes()}
        for incarnation, record in now.items():
            before = first.get(incarnation)
            if before is None or before.beat != record.beat:
                moved.setdefault(incarnation, trio.current_time())
    dead = now.keys() - moved.keys()
    owned = Counter(record.owner for record in await leases.slots())
    ended = trio.current_time()
    nodes = [
        _status(record, record.incarnation in dead, ended - moved.get(name, began), owned[name])
        for name, record in now.items()
    ]
    return ClusterStatus(
        nodes=sorted(nodes, key=lambda node: (node.node, node.incarnation)),
        slots=owned.total(),
        slots_unowned=sum(
            n for owner, n in owned.items() if owner not in moved.keys() & now.keys()
        ),
    )


def _status(record: NodeRecord, dead: bool, age_s: float, slots: int) -> NodeStatus:
    return NodeStatus(
        node=record.node,
        incarnation=record.incarnation,
        state="dead" if dead else "draining" if record.draining else "alive",
        beat_age_ms=round(age_s * 1000),
        http=record.http,
        tcp=record.tcp,
        started=record.started_ms,
        connections=record.connections,
        conversations=record.conversations,
        lag_ms=record.lag_ms,
        slots=slots,
    )


def table_of(seen: ClusterStatus) -> Table:
    """The nodes for people, a line each."""
    table = Table(box=SIMPLE)
    for name in ("node", "incarnation", "state"):
        table.add_column(name, overflow="fold")
    for name in ("beat", "slots", "connections", "conversations", "lag"):
        table.add_column(name, justify="right")
    for node in seen.nodes:
        beat, lag = f"{node.beat_age_ms} ms", f"{node.lag_ms} ms"
        counts = (node.slots, node.connections, node.conversations)
        colour = {"alive": "green", "draining": "yellow", "dead": "red"}[node.state]
        state = f"[{colour}]{node.state}[/]"
        table.add_row(node.node, node.incarnation, state, beat, *map(str, counts), lag)
    return table
