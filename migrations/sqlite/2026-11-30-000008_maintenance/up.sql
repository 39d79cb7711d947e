-- A time in which a server is maintained. "back_to" is what its server was before the first of those that overlap, kept
-- while it is in progress; "due_at_us" is when it is to begin or to end, as long as one of these is to come.
CREATE TABLE maintenance_windows (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    description TEXT,
    scheduled_for_us INTEGER NOT NULL,
    duration_minutes INTEGER NOT NULL CHECK (duration_minutes BETWEEN 1 AND 1440),
    status TEXT NOT NULL,
    started_at_us INTEGER,
    ended_at_us INTEGER,
    back_to TEXT CHECK ((status = 'in_progress') = (back_to IS NOT NULL)),
    due_at_us INTEGER CHECK ((status IN ('scheduled', 'in_progress')) = (due_at_us IS NOT NULL)),
    revision INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL
) STRICT;
CREATE INDEX maintenance_windows_server ON maintenance_windows (server_id, scheduled_for_us);
CREATE INDEX maintenance_windows_due ON maintenance_windows (due_at_us) WHERE due_at_us IS NOT NULL;
