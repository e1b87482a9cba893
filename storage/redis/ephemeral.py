"""Buckets and codes, each a key that expires by itself and changes in one small script.

And one that stays: which cluster all names with this prefix are of. The scripts go by their hashes;
a server that has forgotten one is sent its text. Buckets go by the server's clock: where it jumps,
at worst a bucket is full, or empty for a minute.
"""

from __future__ import annotations

import hashlib

from storage.redis.link import Answer, Command
from storage.redis.pipeline import Pipeline, ScriptMissing


class Script:
    """A Lua script on one key."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()
        # How Redis names scripts; nothing rests on its strength.
        self._sha = hashlib.sha1(self._text, usedforsecurity=False).hexdigest().encode()

    async def run(self, pipeline: Pipeline, key: str, *args: str) -> Answer:
        """Its answer. Raises `Unavailable`."""
        words: Command = (b"1", key.encode(), *args)
        try:
            (answer,) = await pipeline.run([(b"EVALSHA", self._sha, *words)])
        except ScriptMissing:
            (answer,) = await pipeline.run([(b"EVAL", self._text, *words)])
        return answer


TAKE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local minute, each = 60000000, tonumber(ARGV[1])
local full_at = tonumber(redis.call('GET', KEYS[1]) or 0)
full_at = math.min(math.max(full_at, now), now + minute) + each
local wait = full_at - now - minute
if wait > 0 then return math.ceil(wait / 1000) end
local ttl = math.ceil((full_at - now) / 1000)
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', ttl)
return 0
""")
"""Take one from a bucket, which is kept as the time (µs) when it will be full again."""

PUT_CODE = Script("""
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'code', ARGV[1], 'tries', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

TRY_CODE = Script("""
local code = redis.call('HGET', KEYS[1], 'code')
if not code then return 0 end
if code == ARGV[1] then redis.call('DEL', KEYS[1]) return 1 end
if redis.call('HINCRBY', KEYS[1], 'tries', -1) <= 0 then redis.call('DEL', KEYS[1]) end
return 0
""")

MINUTE_US = 60_000_000


class RedisEphemeral:
    """`storage.shared.Ephemeral`."""

    def __init__(self, pipeline: Pipeline, prefix: str) -> None:
        self._pipeline = pipeline
        self._prefix = prefix

    async def claim(self, cluster: str) -> str:
        key = f"{self._prefix}:cluster".encode()
        (found,) = await self._pipeline.run([(b"SET", key, cluster, b"NX", b"GET")])
        return cluster if found is None else str(found, "utf-8")

    async def wait_ms(self, what: str, who: str, *, per_minute: int) -> int:
        # With its length, no name can be continued into another bucket's.
        key = f"{self._prefix}:r:{len(what)}:{what}:{who}"
        answer: int = await TAKE.run(self._pipeline, key, str(MINUTE_US // per_minute))
        return answer

    async def put_code(self, name: str, code: str, *, ttl_ms: int, tries: int) -> None:
        await PUT_CODE.run(self._pipeline, self._code(name), code, str(ttl_ms), str(tries))

    async def try_code(self, name: str, code: str) -> bool:
        return bool(await TRY_CODE.run(self._pipeline, self._code(name), code))

    def _code(self, name: str) -> str:
        return f"{self._prefix}:c:{name}"
