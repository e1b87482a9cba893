"""An entry of a conversation as a line on the screen. Knows every kind; asks nobody anything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.text import Text

from broker.cli.chat_screen import clean
from broker.client import Message

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_red", "bright_cyan")


def line_of(entry: Message, names: Mapping[int, str], *, own: int, place: str = "") -> Text:
    """The line. `names` has those who occur in it; `place` names another conversation."""
    line = Text().append(datetime.fromtimestamp(entry.ts / 1000).strftime("%H:%M "), style="dim")
    if place:
        line.append(f"[{clean(place)}] ", style="dim")
    who = names.get(entry.sender, f"user {entry.sender}")
    said = _said(entry)
    if said is None:
        return line.append(f"* {who} {_done(entry, names)}", style="dim")
    style = "bold" if entry.sender == own else COLOURS[entry.sender % len(COLOURS)]
    line.append(f"{who}: ", style=style)
    line.append(said)
    return line.append(" (edited)", style="dim") if entry.edited_ts else line


def _said(entry: Message) -> str | None:
    """The words of a message; None for entries that are no message, or none any more."""
    if entry.recalled:
        return None
    if entry.kind in ("text", "emoji", "sticker"):
        return clean(str(entry.body))
    if entry.kind in ("image", "audio", "video", "file", "custom", "call"):
        name = entry.body.get("name") if isinstance(entry.body, dict) else None
        return f"[{entry.kind}{f' {clean(str(name))}' if name else ''}]"
    return None


def _done(entry: Message, names: Mapping[int, str]) -> str:
    """What somebody did, for entries that are no message."""
    body: dict[str, Any] = entry.body if isinstance(entry.body, dict) else {}
    match entry.kind:
        case "edit":
            return f"changed {entry.ref} to: {clean(str(entry.body))}"
        case "recall":
            return f"took {entry.ref} back"
        case "pin" | "unpin":
            return f"{entry.kind}ned {entry.ref}"
        case "react":
            verb = "reacted to" if body.get("on", True) else "no longer reacts to"
            return f"{verb} {entry.ref} with {clean(str(body.get('emoji', '')))}"
        case "system":
            return _happened(body, entry.sender, names)
    return "took this message back" if entry.recalled else f"({clean(entry.kind)})"


def _happened(body: dict[str, Any], sender: int, names: Mapping[int, str]) -> str:
    event = clean(str(body.get("event", "did something")))
    users = body.get("users")
    others = [
        names.get(user, f"user {user}")
        for user in (users if isinstance(users, list) else [])
        if user != sender
    ]
    return f"{event}: {', '.join(others)}" if others else event
