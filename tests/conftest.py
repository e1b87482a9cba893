"""What tests of many folders share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers.broker import Broker, running_broker


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """A running broker with default settings and a store in memory."""
    async with running_broker(tmp_path) as broker:
        yield broker
