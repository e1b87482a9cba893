"""The command line in this process, for tests that look at what it says."""

import pytest
from click.testing import CliRunner, Result

from broker.cli import main


class Parley:
    """Calls `parley ARGUMENTS` and returns its result."""

    def __call__(self, *arguments: object, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)


@pytest.fixture
def parley(monkeypatch: pytest.MonkeyPatch) -> Parley:
    """A command line that no variable of the machine reaches, with cheap passwords."""
    import os

    for name in [name for name in os.environ if name.startswith("PARLEY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARLEY_PASSWORDS__MEMORY_KIB", "64")
    monkeypatch.setenv("PARLEY_PASSWORDS__PASSES", "1")
    return Parley()
