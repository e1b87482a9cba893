"""`python -m broker.cli` is `parley`."""

from broker.cli.main import main

main(prog_name="parley")
