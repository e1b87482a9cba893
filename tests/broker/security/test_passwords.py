"""Passwords are hashed beside the loop, so many at once, and nobody learns which names exist."""

import threading

import pytest
import trio
import trio.testing
from argon2 import PasswordHasher

from broker.config import Passwords as Settings
from broker.security.passwords import BUSY_AFTER_MS, Passwords, Verdict
from broker.wire.errors import Code, Refusal

CHEAP = Settings(parallel=2, queue=3, memory_kib=64, passes=1)


class Gate:
    """Stands in for the hash function: holds every worker until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered: list[int] = []

    def hash(self, password: bytes) -> str:
        self.entered.append(threading.get_ident())
        assert self.opened.wait(timeout=10)
        return "hash of " + password.decode()


async def test_the_right_password_is_good_and_any_other_is_not() -> None:
    passwords = Passwords(CHEAP)
    stored = await passwords.hash("correct horse")

    assert stored.startswith("$argon2id$")
    assert await passwords.verify("correct horse", stored) == Verdict(good=True)
    assert await passwords.verify("correct hors", stored) == Verdict(good=False)


async def test_the_same_password_has_another_hash_each_time() -> None:
    passwords = Passwords(CHEAP)

    assert await passwords.hash("correct horse") != await passwords.hash("correct horse")


async def test_composed_and_decomposed_accents_are_the_same_password() -> None:
    passwords = Passwords(CHEAP)
    stored = await passwords.hash("cafe\N{COMBINING ACUTE ACCENT} noir")

    assert (await passwords.verify("caf\N{LATIN SMALL LETTER E WITH ACUTE} noir", stored)).good


async def test_half_a_surrogate_pair_is_a_wrong_password_and_no_crash() -> None:
    passwords = Passwords(CHEAP)

    assert not (await passwords.verify("\ud800", await passwords.hash("correct horse"))).good


@pytest.mark.parametrize("stored", [None, "", "no hash", "$argon2id$v=19$m=1"])
async def test_what_is_no_hash_is_never_good_and_costs_a_hash_all_the_same(
    stored: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = Passwords(CHEAP)
    verified: list[str] = []
    real = PasswordHasher.verify

    def counted(self: PasswordHasher, hash: str, password: bytes) -> bool:
        verified.append(hash)
        return real(self, hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)

    assert await passwords.verify("nobody has this password", stored) == Verdict(good=False)
    assert "$m=64,t=1,p=1$" in verified[-1]


async def test_a_good_password_under_old_parameters_brings_a_new_hash() -> None:
    old = await Passwords(CHEAP).hash("correct horse")
    passwords = Passwords(Settings(memory_kib=128, passes=1))

    verdict = await passwords.verify("correct horse", old)

    assert verdict.rehash is not None
    assert "$m=128,t=1,p=1$" in verdict.rehash
    assert await passwords.verify("correct horse", verdict.rehash) == Verdict(good=True)
    assert await passwords.verify("wrong horse", old) == Verdict(good=False)


async def test_beyond_the_bounds_a_login_is_refused_at_once_and_later_ones_go_on() -> None:
    passwords = Passwords(CHEAP)
    gate = Gate()
    passwords._hasher = gate  # type: ignore[assignment]
    hashes: list[str] = []

    async def one(number: int) -> None:
        hashes.append(await passwords.hash(str(number)))

    async with trio.open_nursery() as nursery:
        for number in range(CHEAP.parallel + CHEAP.queue):
            nursery.start_soon(one, number)
        await trio.testing.wait_all_tasks_blocked()
        assert passwords.statistics() == (CHEAP.parallel, CHEAP.queue)

        with pytest.raises(Refusal) as caught:
            await passwords.hash("one too many")
        assert caught.value.code is Code.UNAVAILABLE
        assert caught.value.after_ms == BUSY_AFTER_MS
        assert len(gate.entered) <= CHEAP.parallel
        gate.opened.set()

    assert sorted(hashes) == [f"hash of {n}" for n in range(CHEAP.parallel + CHEAP.queue)]
    assert threading.get_ident() not in gate.entered
    assert await passwords.hash("again") == "hash of again"


async def test_a_waiting_login_whose_connection_is_gone_leaves_the_queue() -> None:
    passwords = Passwords(CHEAP)
    gate = Gate()
    passwords._hasher = gate  # type: ignore[assignment]

    async with trio.open_nursery() as nursery:
        for _ in range(CHEAP.parallel):
            nursery.start_soon(passwords.hash, "in work")
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as gone:
            async with trio.open_nursery() as connection:
                connection.start_soon(passwords.hash, "waiting")
                await trio.testing.wait_all_tasks_blocked()
                assert passwords.statistics().waiting == 1
                gone.cancel()
        assert passwords.statistics() == (CHEAP.parallel, 0)
        gate.opened.set()
