"""Servers that do less than Parley, each a program of its own, measured in the same run."""
