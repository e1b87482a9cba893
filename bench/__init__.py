"""Measuring Parley and what it is compared with. Stays in the repository: see `parley bench`."""
