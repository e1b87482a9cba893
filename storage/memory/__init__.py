"""A store that lives and dies with its process: for tests, and for brokers that need no history."""

from __future__ import annotations

from storage.memory.directory import MemoryDirectory
from storage.memory.shared import MemoryEphemeral, MemoryLeases, MemoryNetwork, MemoryPresence
from storage.memory.timeline import MemoryTimeline

__all__ = [
    "MemoryEphemeral",
    "MemoryLeases",
    "MemoryNetwork",
    "MemoryPresence",
    "MemoryStore",
]


class MemoryStore(MemoryTimeline, MemoryDirectory):
    """`storage.interfaces.Store` in plain dicts. It never fails and never forgets; nothing bounds
    it but the memory of the machine.
    """

    def __init__(self) -> None:
        MemoryDirectory.__init__(self)
        MemoryTimeline.__init__(self, accounts=self.accounts)

    async def ping(self) -> None:
        """Always ready."""
