"""Was it right? What the clients of a run saw, against the logs that are in the store at its end.

`check` is called when everything is healed, everybody who is to be connected is, and nobody has
said anything for a while: what a client does not have by then, it would never have been told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgpack

from broker.wire.limits import KEY_WINDOW_ENTRIES
from tests.histories.membership import begins_for, ends_for
from tests.histories.record import DeviceRecord, Intent, Map, Record, Seen


@dataclass
class Truth:
    """What is in the store. Payloads are as they are stored: one msgpack map each.

    `earlier` has, where it is known, other states in which an entry was visible for a time.
    `members` are those at the end; of a direct conversation, its two users.
    """

    logs: Mapping[str, Sequence[bytes]]
    members: Mapping[str, Sequence[int]]
    earlier: Mapping[str, Sequence[Sequence[bytes]]] = field(default_factory=dict)
    online: set[int] | None = None
    private: Collection[str] = ()
    """Groups that show nobody what was said while they were no member."""


def check(record: Record, truth: Truth) -> list[str]:
    """Everything that is wrong, in words; what clients noticed themselves comes first."""
    logs = {conv: [msgpack.unpackb(p) for p in payloads] for conv, payloads in truth.logs.items()}
    wrong = list(record.violations)
    impatient = {(i.user, i.key) for i in record.intents if not i.patient}
    for conv, log in logs.items():
        wrong += _check_log(conv, log, impatient)
    wrong += [
        f"{hole}, without having gone"
        for user, conv, seq, hole in record.owed
        if not any(ends_for(entry, user) for entry in logs.get(conv, [])[seq - 1 :])
    ]
    for intent in record.intents:
        wrong += _check_intent(intent, logs.get(intent.conv, []))
    for device in record.devices:
        for conv, seen in device.logs.items():
            wrong += _check_seen(device, conv, seen, logs.get(conv, []), truth.earlier.get(conv))
        for conv in truth.private:
            wrong += _check_private(device, conv, logs.get(conv, []))
        if device.connected:
            wrong += _check_complete(device, logs, truth.members)
            wrong += _check_present(device, truth.online)
    return wrong


def _check_log(conv: str, log: list[Map], impatient: Collection[tuple[int, str]]) -> list[str]:
    wrong = []
    if (seqs := [entry["seq"] for entry in log]) != list(range(1, len(log) + 1)):
        wrong.append(f"{conv}: the log has holes: {seqs}")
    last: dict[tuple[int, str], int] = {}
    for entry in log:
        if not entry.get("key"):
            continue
        key, seq = (entry["from"], entry["key"]), entry["seq"]
        # Keys are remembered for so long; who does not look into the log then says it twice.
        forgotten = key in impatient and seq - last.get(key, seq) > KEY_WINDOW_ENTRIES
        if key in last and not forgotten:
            wrong.append(f"{conv}: the key {key} is stored twice, as {last[key]} and as {seq}")
        last[key] = seq
    times = [entry["ts"] for entry in log]
    if times != sorted(times):
        wrong.append(f"{conv}: the times go backwards")
    return wrong


def _check_intent(intent: Intent, log: list[Map]) -> list[str]:
    where = [
        entry for entry in log if entry.get("key") == intent.key and entry["from"] == intent.user
    ]
    name = f"{intent.conv}: {intent.t} {intent.key}"
    if not intent.settled:
        return [] if intent.abandoned else [f"{name} has no answer at the end"]
    if intent.refused:
        if where and not intent.doubtful:
            return [f"{name} was refused ({intent.refused}), and is entry {where[0]['seq']}"]
        return []
    if not where:
        return [f"{name} was acknowledged as entry {intent.seq}, and is not in the log"]
    # If it is there twice, that is judged by `_check_log`.
    entry = next((entry for entry in where if entry["seq"] == intent.seq), None)
    if entry is None:
        is_ = where[0]["seq"]
        return [f"{name} was acknowledged as entry {intent.seq}, and is entry {is_}"]
    changed = entry.get("edited_ts") or entry.get("recalled")
    if intent.t == "send" and not changed and entry.get("body") != intent.fields["body"]:
        return [f"{name} is in the log with another body"]
    return []


def _check_seen(
    device: DeviceRecord,
    conv: str,
    seen: list[Seen],
    log: list[Map],
    earlier: Sequence[Sequence[bytes]] | None,
) -> list[str]:
    wrong = []
    for entry in seen:
        if entry.seq > len(log):
            wrong.append(
                f"{device.name}: {conv}: saw entry {entry.seq}, the log ends at {len(log)}"
            )
            continue
        stored = log[entry.seq - 1]
        states = [stored]
        if earlier is not None:
            states += [msgpack.unpackb(payload) for payload in earlier[entry.seq - 1]]
        elif stored.get("edited_ts") or stored.get("recalled"):
            states.append({**stored, "body": entry.body})
        if (entry.sender, entry.kind) != (stored["from"], stored["kind"]) or all(
            entry.body != state.get("body") for state in states
        ):
            wrong.append(
                f"{device.name}: {conv}: saw entry {entry.seq} as {entry.sender} {entry.kind} "
                f"{entry.body!r}, it is {stored['from']} {stored['kind']} {stored.get('body')!r}"
            )
    return wrong


def _check_private(device: DeviceRecord, conv: str, log: list[Map]) -> list[str]:
    """Of such a group, no frame had an entry from before one's coming, or after one's going."""
    allowed: set[int] = set()
    inside = False
    for entry in log:
        inside = inside or begins_for(entry, device.user)
        if inside:
            allowed.add(entry["seq"])
        inside = inside and not ends_for(entry, device.user)
    if forbidden := sorted(device.shown.get(conv, set()) - allowed):
        return [f"{device.name}: {conv}: was shown {forbidden}, and was no member then"]
    return []


def _check_complete(
    device: DeviceRecord, logs: Mapping[str, list[Map]], members: Mapping[str, Sequence[int]]
) -> list[str]:
    """A connected client has all that it may have, without having asked for it."""
    wrong = []
    for conv, log in logs.items():
        if device.user in members.get(conv, ()) and log:
            cursor = device.cursors.get(conv, 0)
            if cursor < len(log):
                wrong.append(f"{device.name}: {conv}: was never told of {cursor + 1} to {len(log)}")
    return wrong


def _check_present(device: DeviceRecord, online: set[int] | None) -> list[str]:
    if online is None:
        return []
    return [
        f"{device.name} was told that {user} is {'on' if told else 'off'}line, which is not so"
        for user, told in sorted(device.presence.items())
        if told != (user in online)
    ]
