"""Real nodes, a real Cassandra and a real Redis, each killed, paused and started again by a seed,
while people talk; and the checker of `tests.histories` over all that they saw.

`python -m tests.faults.cluster --faults 200` is the long run.
"""
