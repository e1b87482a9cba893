"""A session of the driver that is ready for a store: connected, its schema checked, all prepared.

Blocking, and without an event loop, so that stores of several loops may use one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cassandra.cluster import Cluster, Session

from storage.cassandra.connection import connect, told
from storage.cassandra.replication import checked_place
from storage.cassandra.schema import check
from storage.cassandra.settings import CassandraSettings
from storage.cassandra.statements import Statements


class Connected:
    """What a store needs of the driver."""

    def __init__(self, settings: CassandraSettings) -> None:
        """Raises `Unavailable` where there is no cluster or no schema, `SchemaTooNew`, and
        `UnsafeSettings` where copies are otherwise than the settings are good for."""
        self._cluster: Cluster = connect(settings)
        self.settings = settings
        try:
            with told(settings):
                self.session: Session = self._cluster.connect()
                check(self.session, settings)
                self.place = checked_place(self._cluster, settings)
                self.statements = Statements(self.session, settings.keyspace)
        except BaseException:
            self._cluster.shutdown()
            raise

    def replicas(self, routing_key: bytes) -> Sequence[Any]:
        """The nodes that keep the partition of a key."""
        found: Sequence[Any] = self._cluster.metadata.get_replicas(
            self.settings.keyspace, routing_key
        )
        return found

    def close(self) -> None:
        """End all connections; what is under way is lost."""
        self._cluster.shutdown()
