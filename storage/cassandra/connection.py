"""The driver's connection to a cluster: who may be asked, how long, and how often again.

Blocking calls of the driver are made in threads. Whatever the driver raises here becomes
`Unavailable` and names the cluster; no message holds a password.
"""

from __future__ import annotations

import atexit
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    _shutdown_clusters,
)
from cassandra.policies import (
    ConstantReconnectionPolicy,
    ConstantSpeculativeExecutionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    RetryPolicy,
    TokenAwarePolicy,
)
from cassandra.query import dict_factory, tuple_factory

from storage.cassandra.failures import DRIVER_ERRORS, nowhere, translated
from storage.cassandra.settings import CassandraSettings
from storage.errors import Unavailable
from storage.tls import load_own

READ, WRITE, CONDITIONAL, EXACT = "read", "write", "conditional", "exact"
"""How a statement is run: with a second try beside it, with tries one after the other, never twice,
and (a read) so that it sees and settles what conditional writes have begun."""

SPECULATIVE_DELAY_S = 0.05
"""A read that has no answer yet is asked of another node as well."""
SPECULATIVE_TRIES = 1
"""Other nodes that one read is asked of so."""
CONNECT_TIMEOUT_S = 10.0
"""For one node to answer a new connection."""
RECONNECT_PERIOD_S = 1.0
"""Between two tries to reach a node that is away; they never end while the store is open."""
AGREEMENT_WAIT_S = 30.0
"""For all nodes to know a change of the schema; then it is `Unavailable`."""

RETRIES_MAX = 2
"""Further nodes that a statement is given to when the connection to one is lost."""

# At the end of the process, the driver would wait until a cluster is connected, to close it. Ours
# are closed by whoever opened them, and one that nobody waits for any more goes with the process.
atexit.unregister(_shutdown_clusters)


class _Roomy(Cluster.connection_class):  # type: ignore[misc]
    """The driver's thread needs the interpreter again after each piece of its 4 KiB, which takes up
    to 5 ms each time while the event loop is busy: what it writes and reads shall be few pieces."""

    in_buffer_size = 64 * 1024
    out_buffer_size = 1024 * 1024


class _Bounded(RetryPolicy):  # type: ignore[misc]
    """As the driver's own, but a lost connection is not followed from node to node for ever."""

    def on_request_error(
        self, query: object, consistency: object, error: Exception, retry_num: int
    ) -> tuple[int, object]:
        if retry_num >= RETRIES_MAX:
            return self.RETHROW, None
        return self.RETRY_NEXT_HOST, None


@contextmanager
def told(settings: CassandraSettings) -> Iterator[None]:
    """Errors of the driver as `Unavailable`, with the cluster's name."""
    try:
        yield
    except DRIVER_ERRORS as error:
        text = str(translated(error)).removeprefix("Cassandra: ")
        if settings.dc and nowhere(error):
            text = f"dc: no node in {settings.dc} can be reached ({text})"
        raise Unavailable(f"{settings.where}: {text}", applied=None) from error


def connect(settings: CassandraSettings) -> Cluster:
    """A cluster, with its threads started when its first session is. Raises `Unavailable`."""
    with told(settings):
        login = PlainTextAuthProvider(settings.user, settings.password) if settings.user else None
        return Cluster(
            [host for host, _ in settings.hosts],
            port=settings.hosts[0][1],
            auth_provider=login,
            ssl_context=_tls(settings),
            execution_profiles=_profiles(settings),
            protocol_version=5,
            connection_class=_Roomy,
            connect_timeout=CONNECT_TIMEOUT_S,
            control_connection_timeout=CONNECT_TIMEOUT_S,
            max_schema_agreement_wait=AGREEMENT_WAIT_S,
            # Else what follows a request that is not yet confirmed waits, for up to 40 ms.
            sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            reconnection_policy=ConstantReconnectionPolicy(RECONNECT_PERIOD_S, max_attempts=None),
            application_name="parley",
        )


def _profiles(settings: CassandraSettings) -> dict[object, ExecutionProfile]:
    # Without a name, the driver takes the data centre of the first of our hosts that it reaches.
    token_aware = TokenAwarePolicy(DCAwareRoundRobinPolicy(settings.dc))
    level = ConsistencyLevel.name_to_value[settings.consistency]
    serial = ConsistencyLevel.LOCAL_SERIAL if settings.is_local else ConsistencyLevel.SERIAL
    seconds = settings.timeout_ms / 1000

    def profile(**more: object) -> ExecutionProfile:
        return ExecutionProfile(
            load_balancing_policy=token_aware,
            serial_consistency_level=serial,
            request_timeout=seconds,
            **{
                "consistency_level": level,
                "retry_policy": _Bounded(),
                "row_factory": tuple_factory,
                **more,
            },
        )

    once = FallthroughRetryPolicy()
    twice = ConstantSpeculativeExecutionPolicy(SPECULATIVE_DELAY_S, SPECULATIVE_TRIES)
    return {
        EXEC_PROFILE_DEFAULT: profile(),
        WRITE: profile(),
        READ: profile(speculative_execution_policy=twice),
        CONDITIONAL: profile(retry_policy=once, row_factory=dict_factory),
        EXACT: profile(retry_policy=once, consistency_level=serial),
    }


def _tls(settings: CassandraSettings) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    used = settings.ca
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        if settings.cert:
            used = f"{settings.cert} with the key {settings.key}"
            load_own(context, settings.cert, settings.key)
    except (OSError, ValueError) as error:  # also those of `ssl`
        raise Unavailable(f"{settings.where}: {used} cannot be used for TLS: {error}") from error
    return context
