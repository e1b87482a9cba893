"""Measuring Parley on Cassandra and Redis: the cases S1 to S5 of `parley bench`."""
