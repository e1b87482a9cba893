"""What clients of a cluster did and saw, and whether it was right: shared by the simulated cluster
(tests/simulation) and the real one (tests/faults/cluster). Nothing of the broker's code is here.
"""
