"""A broken broker: it acknowledges first and commits then. A run with such nodes must fail.

Used by `python -m tests.faults.cluster --hasty` only.
"""

from __future__ import annotations

import sys

import pytest

from broker.cli.main import main
from tests.simulation.test_checker_catches import no_waiting

if __name__ == "__main__":
    no_waiting(pytest.MonkeyPatch())
    sys.exit(main())
