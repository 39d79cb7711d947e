-- A container of a server's engine, as the agent last said: "observed" as JSON, and of it what lists are filtered by.
CREATE TABLE containers (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    engine_id TEXT NOT NULL,
    state TEXT NOT NULL,
    project TEXT,
    task_id INTEGER,
    search_text TEXT NOT NULL,
    observed TEXT NOT NULL,
    usage TEXT,
    UNIQUE (server_id, engine_id)
) STRICT;
CREATE INDEX containers_server ON containers (server_id, id);
CREATE INDEX containers_task ON containers (task_id) WHERE task_id IS NOT NULL;

-- When the agent of a server last said or confirmed what its engine has, and in which of its sessions it told all.
CREATE TABLE container_reports (
    server_id INTEGER PRIMARY KEY NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    reported_at_us INTEGER NOT NULL,
    session TEXT NOT NULL
) STRICT;

-- What an operation brings about that runs no task, as JSON.
ALTER TABLE operations ADD COLUMN deed TEXT;
