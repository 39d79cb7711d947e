-- A join token; of its secret only the SHA-256 is kept. It may outlive its pool: whoever joins by it is told.
CREATE TABLE enrollments (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL,
    pool_id INTEGER,
    tags TEXT NOT NULL,
    max_uses INTEGER NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0 CHECK (uses BETWEEN 0 AND max_uses),
    expires_at_us INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    secret_digest TEXT NOT NULL UNIQUE
) STRICT;

-- The agent of a server goes with it.
CREATE TABLE agents (
    server_id INTEGER PRIMARY KEY NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    token_digest TEXT NOT NULL UNIQUE,
    place TEXT NOT NULL,
    enrolled_at_us INTEGER NOT NULL
) STRICT;

-- What an agent is told to do. It outlives its server, as attempts do, and goes with its task. It is open until it has
-- "finished_at_us".
CREATE TABLE operations (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    server_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    task_id INTEGER REFERENCES tasks (id) ON DELETE CASCADE,
    attempt INTEGER,
    state TEXT NOT NULL,
    cancel_requested INTEGER NOT NULL,
    progress TEXT,
    result TEXT,
    created_at_us INTEGER NOT NULL,
    started_at_us INTEGER,
    finished_at_us INTEGER
) STRICT;
CREATE UNIQUE INDEX operations_attempt ON operations (task_id, attempt) WHERE task_id IS NOT NULL;
CREATE INDEX operations_server ON operations (server_id, id);
CREATE INDEX operations_open ON operations (id) WHERE finished_at_us IS NULL;
