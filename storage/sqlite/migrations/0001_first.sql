-- Names of conversations are long and everywhere; rows hold the number instead.
CREATE TABLE conversation (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- Entries first..last of a conversation: their payloads, msgpack each, one after the other.
CREATE TABLE chunk (
    id    INTEGER PRIMARY KEY,
    conv  INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL,
    ts    INTEGER NOT NULL,
    data  BLOB NOT NULL
);
CREATE UNIQUE INDEX chunk_place ON chunk (conv, last);

-- Small chunks as they come, until enough have gathered to be merged into `chunk`. What a commit
-- costs is the pages it touches: here they are few and the same ones, in the large table's index
-- one per conversation.
CREATE TABLE recent (
    id    INTEGER PRIMARY KEY,
    conv  INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL,
    ts    INTEGER NOT NULL,
    data  BLOB NOT NULL
);
CREATE UNIQUE INDEX recent_place ON recent (conv, last);

CREATE TABLE talk_group (
    id         INTEGER PRIMARY KEY,
    conv       INTEGER NOT NULL UNIQUE,
    title      TEXT NOT NULL,
    title_key  TEXT NOT NULL,
    kind       TEXT NOT NULL,
    visibility TEXT NOT NULL,
    "join"     TEXT NOT NULL,
    history    TEXT NOT NULL,
    avatar     TEXT NOT NULL,
    about      TEXT NOT NULL,
    created    INTEGER NOT NULL,
    dissolved  INTEGER NOT NULL
);

CREATE TABLE member (
    user  INTEGER NOT NULL,
    conv  INTEGER NOT NULL,
    role  TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (user, conv)
) WITHOUT ROWID;
CREATE INDEX member_of ON member (conv, user);

CREATE TABLE mark (
    conv      INTEGER NOT NULL,
    user      INTEGER NOT NULL,
    read      INTEGER NOT NULL,
    delivered INTEGER NOT NULL,
    PRIMARY KEY (conv, user)
) WITHOUT ROWID;

CREATE TABLE setting (
    user     INTEGER NOT NULL,
    conv     INTEGER NOT NULL,
    muted    INTEGER NOT NULL,
    pinned   INTEGER NOT NULL,
    hidden   INTEGER NOT NULL,
    nickname TEXT NOT NULL,
    draft    TEXT NOT NULL,
    PRIMARY KEY (user, conv)
) WITHOUT ROWID;

CREATE TABLE user (
    id            INTEGER PRIMARY KEY,
    name          TEXT NOT NULL,
    key           TEXT NOT NULL UNIQUE,
    nickname      TEXT NOT NULL,
    avatar        TEXT NOT NULL,
    bio           TEXT NOT NULL,
    status        TEXT NOT NULL,
    email         TEXT NOT NULL,
    phone         TEXT NOT NULL,
    show_online   TEXT NOT NULL,
    show_email    TEXT NOT NULL,
    show_phone    TEXT NOT NULL,
    created       INTEGER NOT NULL,
    last_seen     INTEGER NOT NULL,
    disabled      INTEGER NOT NULL,
    generation    INTEGER NOT NULL,
    password_hash TEXT
);

CREATE TABLE session (
    id         TEXT PRIMARY KEY,
    user       INTEGER NOT NULL,
    token_hash BLOB NOT NULL UNIQUE,
    device     TEXT NOT NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    ended      INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX session_of ON session (user);

-- Refresh tokens that were used up, until they would have expired: a second use betrays a copy.
CREATE TABLE used_token (
    token_hash BLOB PRIMARY KEY,
    session    TEXT NOT NULL,
    expires    INTEGER NOT NULL
) WITHOUT ROWID;

-- Counters, one row: the newest group id given out, and a cell that proves that writing works.
CREATE TABLE counter (
    last_group_id INTEGER NOT NULL,
    probe         INTEGER NOT NULL
);
INSERT INTO counter VALUES (0, 0);
