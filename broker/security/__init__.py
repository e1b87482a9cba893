"""Secrets, passwords and tokens. Nothing here knows a connection, a store or a command."""
