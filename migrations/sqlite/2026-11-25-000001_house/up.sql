-- Times are microseconds since 1970 in UTC, CPU is in millicores, memory and storage in MiB, JSON is text.

CREATE TABLE pools (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    quota_cpu_millis INTEGER,
    quota_memory_mib INTEGER,
    quota_storage_mib INTEGER,
    quota_gpus INTEGER,
    watermarks TEXT NOT NULL,
    strategy TEXT NOT NULL,
    labels TEXT NOT NULL,
    description TEXT,
    state TEXT NOT NULL,
    search_text TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL
) STRICT;

CREATE TABLE servers (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    architecture TEXT NOT NULL,
    status TEXT NOT NULL,
    cpu_millis INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL,
    storage_mib INTEGER NOT NULL,
    gpus INTEGER NOT NULL,
    reserved_cpu_millis INTEGER NOT NULL DEFAULT 0 CHECK (reserved_cpu_millis BETWEEN 0 AND cpu_millis),
    reserved_memory_mib INTEGER NOT NULL DEFAULT 0 CHECK (reserved_memory_mib BETWEEN 0 AND memory_mib),
    reserved_storage_mib INTEGER NOT NULL DEFAULT 0 CHECK (reserved_storage_mib BETWEEN 0 AND storage_mib),
    reserved_gpus INTEGER NOT NULL DEFAULT 0 CHECK (reserved_gpus BETWEEN 0 AND gpus),
    gpu_model TEXT,
    location TEXT,
    cluster TEXT,
    zone TEXT,
    pool_id INTEGER REFERENCES pools (id),
    tags TEXT NOT NULL,
    cordoned INTEGER NOT NULL DEFAULT 0,
    emulated_architectures TEXT NOT NULL DEFAULT '[]',
    drivers TEXT NOT NULL DEFAULT '[]',
    os TEXT,
    kernel TEXT,
    agent_version TEXT,
    last_seen_at_us INTEGER,
    search_text TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL
) STRICT;
CREATE INDEX servers_pool ON servers (pool_id);
CREATE INDEX servers_cluster ON servers (cluster);
CREATE INDEX servers_zone ON servers (zone);

-- A copy of servers.tags that filters can use an index on.
CREATE TABLE server_tags (
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (server_id, key)
) STRICT;
CREATE INDEX server_tags_pair ON server_tags (key, value, server_id);

CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL
) STRICT;

-- Of every secret only its SHA-256 is kept; scopes are a JSON array, or NULL for every room.
CREATE TABLE tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    secret_digest TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    scopes TEXT,
    expires_at_us INTEGER,
    last_used_at_us INTEGER,
    created_by TEXT NOT NULL,
    created_at_us INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    secret_digest TEXT NOT NULL UNIQUE,
    expires_at_us INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at_us);

CREATE TABLE tickets (
    secret_digest TEXT NOT NULL PRIMARY KEY,
    credential_digest TEXT NOT NULL,
    expires_at_us INTEGER NOT NULL
) STRICT;

-- The answer to a write under an idempotency key, committed with the write.
CREATE TABLE idempotency_keys (
    caller TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    answer TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    PRIMARY KEY (caller, idempotency_key)
) STRICT;
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at_us);

-- One row per change. "canonical" is what the hash is made over; the other columns repeat parts of it for filters.
CREATE TABLE audit_logs (
    seq INTEGER NOT NULL PRIMARY KEY,
    created_at_us INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT,
    outcome TEXT NOT NULL,
    canonical TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX audit_logs_time ON audit_logs (created_at_us);
CREATE INDEX audit_logs_actor ON audit_logs (actor, seq);
CREATE INDEX audit_logs_action ON audit_logs (action, seq);
CREATE INDEX audit_logs_target ON audit_logs (target, seq);

-- The last row of the log: locked by whoever appends, so that rows are numbered without gaps.
CREATE TABLE audit_head (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT;
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '');

-- What stands for rows that were let go.
CREATE TABLE audit_checkpoints (
    seq INTEGER NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    mac TEXT NOT NULL
) STRICT;

-- Which process does a background job, and until when.
CREATE TABLE leases (
    job TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    expires_at_us INTEGER NOT NULL
) STRICT;
