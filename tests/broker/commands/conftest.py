"""A running broker over each store, and a cluster: what commands do must not depend on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.sqlite import open_sqlite
from tests.helpers.broker import Broker, running_broker
from tests.helpers.cluster import any_of_a_cluster


@pytest.fixture(params=["memory", "sqlite", "cluster"])
async def broker(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    if request.param == "memory":
        async with running_broker(tmp_path) as broker:
            yield broker
    elif request.param == "cluster":
        async with any_of_a_cluster(tmp_path) as broker:
            yield broker
    else:
        async with (
            open_sqlite(tmp_path / "parley.sqlite", exclusive=True) as store,
            running_broker(tmp_path, store=store) as broker,
        ):
            yield broker
