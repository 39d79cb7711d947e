-- "spec" is what was asked for, as JSON; columns repeat what is looked for. A task outlives its pool and its server.
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    spec TEXT NOT NULL,
    status TEXT NOT NULL,
    pool_id INTEGER,
    attempt INTEGER NOT NULL,
    server_id INTEGER,
    reason TEXT,
    detail TEXT,
    search_text TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL,
    scheduled_at_us INTEGER,
    started_at_us INTEGER,
    finished_at_us INTEGER
) STRICT;
CREATE INDEX tasks_status ON tasks (status, id);
CREATE INDEX tasks_pool ON tasks (pool_id, id) WHERE pool_id IS NOT NULL;
CREATE INDEX tasks_server ON tasks (server_id, id) WHERE server_id IS NOT NULL;

-- An attempt is an allocation: while "held", it takes this much of its server.
CREATE TABLE attempts (
    task_id INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    server_id INTEGER NOT NULL,
    cpu_millis INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL,
    storage_mib INTEGER NOT NULL,
    gpus INTEGER NOT NULL,
    held INTEGER NOT NULL,
    status TEXT NOT NULL,
    exit_code INTEGER,
    signal INTEGER,
    reason TEXT,
    created_at_us INTEGER NOT NULL,
    started_at_us INTEGER,
    finished_at_us INTEGER,
    PRIMARY KEY (task_id, number)
) STRICT;
CREATE INDEX attempts_held ON attempts (server_id) WHERE held;

-- What allocations hold on a pool's servers: the sum of theirs, kept here so that a quota is checked in one row.
ALTER TABLE pools ADD COLUMN reserved_cpu_millis INTEGER NOT NULL DEFAULT 0 CHECK (reserved_cpu_millis >= 0);
ALTER TABLE pools ADD COLUMN reserved_memory_mib INTEGER NOT NULL DEFAULT 0 CHECK (reserved_memory_mib >= 0);
ALTER TABLE pools ADD COLUMN reserved_storage_mib INTEGER NOT NULL DEFAULT 0 CHECK (reserved_storage_mib >= 0);
ALTER TABLE pools ADD COLUMN reserved_gpus INTEGER NOT NULL DEFAULT 0 CHECK (reserved_gpus >= 0);
