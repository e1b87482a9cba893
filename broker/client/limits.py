"""Every bound and time of the client by name, the unit in the last word."""

from __future__ import annotations

from broker.wire.limits import KEY_WINDOW_ENTRIES

OPENING_SECONDS = 10.0
"""From the first byte of the connection to `welcome`."""
CLOSING_SECONDS = 2.0
COMMAND_SECONDS = 60.0
"""How long a command may take by default, reconnects and retries included."""
COMMAND_ATTEMPTS = 8
"""How often a refused command with `retry` is sent before the refusal reaches the caller."""
RETRY_BASE_SECONDS = 0.1
RETRY_CAP_SECONDS = 10.0
RETRY_WAIT_MAX_SECONDS = 30.0
"""A broker that asks for a longer wait than this is not waited for: the caller decides."""
RECONNECT_BASE_SECONDS = 0.25
RECONNECT_CAP_SECONDS = 30.0
STABLE_SECONDS = 10.0
"""A connection that lived this long begins a new series of reconnect delays when it breaks."""
IN_FLIGHT_COMMANDS = 128
"""Further callers wait; below what a broker takes from one connection at once."""
HEARTBEAT_MIN_SECONDS = 1.0
EVENTS_BUFFER = 1_024
"""Events that wait for the application before the client stops reading."""
HELD_ENTRIES = 1_024
"""Entries kept, over all conversations, until those before them have been pulled."""
PULLS_AT_ONCE = 4
PULL_PAGE_ENTRIES = 200
LOOKS_AT_ONCE = 4
"""Conversations into whose logs the client looks at once for what it may have sent already."""
RESEND_WITHIN_ENTRIES = KEY_WINDOW_ENTRIES // 2
"""How many entries may be unseen when something is sent again: the broker knows its key for twice
as many, so that some may be added while it is on its way."""
SYNC_PAGE_CONVERSATIONS = 20
RECEIVE_BYTES = 64 * 1024
FRAME_MAX_BYTES = 32 * 1024 * 1024
"""The largest frame taken from a broker: 200 entries of the largest body fit."""
WRITE_BATCH_FRAMES = 64
