"""One user's chat: the open conversation, its live lines, and the commands that begin with `/`.

It only asks and shows; every rule is the broker's.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from rich.text import Text

from broker.cli.chat_lines import line_of
from broker.cli.chat_screen import Screen, clean
from broker.client import (
    Client,
    CommandError,
    CommandTimeout,
    ConnectionChanged,
    ConversationChanged,
    Disconnected,
    Event,
    Message,
    Presence,
    Typing,
)

HISTORY_LINES = 30
MEMBERS_SHOWN = 200
TYPING_SHOWN_S = 6
TYPING_SENT_EVERY_S = 3
SETTLE_S = 5
TICK_S = 1
NOT_DONE = (CommandError, CommandTimeout, Disconnected)
"""What a command may end with while the chat goes on."""
HELP = (
    ("/join ROOM", "open g/12, or the public room of that title; made if there is none"),
    ("/with NAME", "open the conversation with a user"),
    ("/rooms", "your conversations"),
    ("/create TITLE", "make a room and open it"),
    ("/who", "who is here, and who of them is online"),
    ("/history [N]", "the last N messages"),
    ("/leave", "leave the room"),
    ("/quit", "end (as do Ctrl-D and Ctrl-C)"),
)


class Chat:
    """What is on the screen. `run` ends when the user does."""

    def __init__(self, client: Client, screen: Screen) -> None:
        self.conv = ""
        self._client = client
        self._screen = screen
        self._title = ""
        self._connected = True
        self._names: dict[int, str] = {}
        self._titles: dict[str, str] = {}
        self._shown: dict[str, int] = {}
        self._read = 0
        self._others: list[int] = []
        self._online: set[int] = set()
        self._typing: dict[int, float] = {}
        self._typing_sent = -math.inf
        self._typed = trio.Event()
        self._progress = trio.Event()
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "join": self.join,
            "with": self.with_user,
            "rooms": self._rooms,
            "create": self._create,
            "who": self._who,
            "history": self._history,
            "leave": self._leave,
            "help": self._help,
        }

    async def run(self) -> None:
        """Show what comes and do what is entered, until the user quits."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive)
            if self._screen.interactive:
                nursery.start_soon(self._tick)
                nursery.start_soon(self._tell_typing)
            async for line in self._screen.lines(lambda: self._typed.set()):
                if line.strip() in ("/quit", "/exit"):
                    break
                await self._take(line)
            await self._settle()
            nursery.cancel_scope.cancel()

    # What the user enters

    async def _take(self, line: str) -> None:
        try:
            if line.startswith("/"):
                name, _, rest = line[1:].partition(" ")
                command = self._commands.get(name)
                if command is None:
                    self._note(f"no such command: /{name}; /help lists them")
                else:
                    await command(rest.strip())
            elif line.strip():
                await self._say(line)
        except NOT_DONE as error:
            if not self._screen.interactive:
                raise
            self._note(str(error))

    async def _say(self, line: str) -> None:
        if not self.conv:
            self._note("no conversation is open: /join ROOM or /with NAME")
            return
        ack = await self._client.send(self.conv, line)
        self._typing_sent = -math.inf
        if ack.online is False:
            self._note("not online now; the message waits there")

    async def join(self, room: str) -> None:
        """Open a room by its conversation or its title; make it if there is none."""
        if not room:
            self._note("which room? /join TITLE or /join g/12")
            return
        conv = room if room.startswith("g/") else await self._find_room(room)
        if conv is None:
            await self._create(room)
            return
        try:
            await self._client.join(conv)
        except CommandError as error:
            if error.code != "conflict":  # a member already
                raise
        await self._open(conv, (await self._client.group(conv)).title)

    async def _find_room(self, title: str) -> str | None:
        answer = await self._client.command("group.find", query=title, limit=200)
        named = [each["conv"] for each in answer.get("groups", ()) if each.get("title") == title]
        return str(named[0]) if named else None

    async def _create(self, title: str) -> None:
        if not title:
            self._note("what is it called? /create TITLE")
            return
        group = await self._client.create_group(
            title, kind="room", visibility="public", join="open"
        )
        await self._open(group.conv, title)

    async def with_user(self, name: str) -> None:
        """Open the conversation with the user of that name."""
        profile = await self._client.command("user.get", name=name)
        low, high = sorted((int(profile["user"]), self._client.user))
        await self._open(f"d/{low}/{high}", name)

    async def _open(self, conv: str, title: str) -> None:
        self.conv, self._title, self._read = conv, title, 0
        self._typing.clear()
        self._note(f"{title} ({conv})")
        await self._history("")
        if self._screen.interactive:
            await self._watch()
        self._update_status()

    async def _watch(self) -> None:
        if self._others:
            await self._client.unwatch(self._others)
        self._others = [user for user in await self._members() if user != self._client.user]
        states = await self._client.watch(self._others) if self._others else []
        self._online = {each.user for each in states if each.online}

    async def _members(self) -> list[int]:
        if self.conv.startswith("d/"):
            return [int(user) for user in self.conv.split("/")[1:]]
        return [each.user for each in await self._client.members(self.conv, limit=MEMBERS_SHOWN)]

    async def _history(self, count: str) -> None:
        limit = min(int(count), 200) if count.isdecimal() and int(count) else HISTORY_LINES
        if self.conv:
            page = await self._client.history(self.conv, limit=limit)
            for entry in page.entries:
                await self._show(entry)
            self._shown[self.conv] = max(page.head, self._shown.get(self.conv, 0))

    async def _rooms(self, _: str) -> None:
        found, more = await self._client.conversations(limit=200)
        for each in found:
            unread = f", {each.unread} unread" if each.unread else ""
            self._note(f"{each.conv}  {each.title or await self._title_of(each.conv)}{unread}")
        if not found or more:
            self._note("and more" if more else "none yet: /join ROOM or /with NAME")

    async def _title_of(self, conv: str) -> str:
        """What people call a conversation that is not open: its title, or the other's name."""
        if conv.startswith("d/"):
            others = {int(part) for part in conv.split("/")[1:]} - {self._client.user}
            return await self._name(others.pop())
        if conv not in self._titles:
            try:
                self._titles[conv] = (await self._client.group(conv)).title
            except CommandError:  # left, kicked or dissolved since
                return conv
        return self._titles[conv]

    async def _who(self, _: str) -> None:
        if self.conv:
            await self._watch()
            for user in self._others[:MEMBERS_SHOWN]:
                state = "online" if user in self._online else "offline"
                self._note(f"{await self._name(user)}  {state}")

    async def _leave(self, _: str) -> None:
        await self._client.leave(self.conv)
        self._note(f"you have left {self._title}")
        self.conv = self._title = ""

    async def _help(self, _: str) -> None:
        for usage, meaning in HELP:
            self._note(f"{usage:<15} {meaning}")

    # What comes from the broker

    async def _receive(self) -> None:
        async for event in self._client:
            try:
                await self._take_event(event)
            except NOT_DONE as error:
                self._note(str(error))
            self._update_status()

    async def _take_event(self, event: Event) -> None:
        if isinstance(event, ConversationChanged):
            self._titles.pop(event.conv, None)
        match event:
            case Message() if event.seq > self._shown.get(event.conv, 0):
                self._typing.pop(event.sender, None)
                await self._show(event)
                self._shown[event.conv] = event.seq
                self._progress.set()
            case Typing() if event.conv == self.conv and event.user != self._client.user:
                await self._name(event.user)
                self._typing[event.user] = trio.current_time() + TYPING_SHOWN_S * event.on
            case Presence():
                await self._show_presence(event)
            case ConversationChanged() if event.conv == self.conv and self._screen.interactive:
                await self._watch()
            case ConnectionChanged() if event.up is not self._connected:  # not each attempt
                self._connected = event.up
                back = "connected again" if event.up else f"connection lost ({event.reason})"
                self._note(back)

    async def _show_presence(self, event: Presence) -> None:
        for each in event.users:
            if each.online is not (each.user in self._online):
                (self._online.add if each.online else self._online.discard)(each.user)
                now = "is online" if each.online else "went offline"
                self._note(f"{await self._name(each.user)} {now}")

    async def _show(self, entry: Message) -> None:
        people = {entry.sender, *entry.mentions}
        if isinstance(entry.body, dict) and isinstance(entry.body.get("users"), list):
            people |= {user for user in entry.body["users"] if isinstance(user, int)}
        names = {user: await self._name(user) for user in people}
        place = "" if entry.conv == self.conv else await self._title_of(entry.conv)
        self._screen.show(line_of(entry, names, own=self._client.user, place=place))

    async def _name(self, user: int) -> str:
        if user not in self._names:
            try:
                profile = await self._client.user_profile(user)
                self._names[user] = clean(str(profile.get("nickname") or profile["name"]))
            except CommandError:
                self._names[user] = f"user {user}"
        return self._names[user]

    # Beside it

    async def _tick(self) -> None:
        """Let "is typing" fade, and tell the broker what has been on the screen."""
        while True:
            await trio.sleep(TICK_S)
            self._update_status()
            newest = self._shown.get(self.conv, 0)
            if self.conv and newest > self._read:
                self._read = newest
                with suppress(*NOT_DONE):
                    await self._client.read(self.conv, newest)

    async def _tell_typing(self) -> None:
        while True:
            await self._typed.wait()
            self._typed = trio.Event()
            if self.conv and trio.current_time() - self._typing_sent >= TYPING_SENT_EVERY_S:
                self._typing_sent = trio.current_time()
                with suppress(*NOT_DONE):
                    await self._client.typing(self.conv)

    async def _settle(self) -> None:
        """Before the end, show what is in the log by now: one's own last words among it."""
        if not self.conv or self._screen.interactive:
            return
        head = (await self._client.history(self.conv, limit=1)).head
        with trio.move_on_after(SETTLE_S):
            while self._shown.get(self.conv, 0) < head:
                self._progress = trio.Event()
                await self._progress.wait()

    def _update_status(self) -> None:
        now = trio.current_time()
        typing = [self._names[user] for user, until in self._typing.items() if until > now]
        parts = [clean(self._title)] if self._title else []
        if self._others:
            parts.append(self._who_is_online())
        if typing:
            parts.append(f"{', '.join(typing[:3])} {'is' if len(typing) == 1 else 'are'} typing")
        self._screen.status("  |  ".join(parts))

    def _who_is_online(self) -> str:
        """Of a direct conversation whether the other is; of a room how many, oneself included."""
        online = len(self._online.intersection(self._others))
        if self.conv.startswith("d/"):
            return "online" if online else "offline"
        return f"{online + 1} online" if self._connected else "not connected"

    def _note(self, text: str) -> None:
        self._screen.show(Text(f"* {clean(text)}", style="dim"))
