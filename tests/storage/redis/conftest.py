"""A Redis of a test's own, and short waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.helpers.servers import Redis, redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """A Redis that the test may empty, pause, kill and start again."""
    with redis(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def impatient() -> Iterator[None]:
    """A server that hangs is noticed in half a second."""
    with (
        patch("storage.redis.link.ANSWER_MAX_S", 0.5),
        patch("storage.redis.bus.ANSWER_MAX_S", 0.5),
        patch("storage.redis.bus.BEAT_S", 0.1),
    ):
        yield
