-- What was measured of servers. It has a writer of its own, so that whoever stores it never waits for changes of the
-- fleet, nor those for it; and no foreign keys, so that neither locks rows of the other.

-- The newest samples, a row each: "readings" is a number and a value for each metric, see the codec.
CREATE TABLE samples (
    server_id BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    readings BYTEA NOT NULL,
    PRIMARY KEY (server_id, at_us)
);

-- The others, by days of UTC since 1970: when there are samples in a day, compressed. "revision" grows with each change.
CREATE TABLE sample_days (
    server_id BIGINT NOT NULL,
    day BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    count BIGINT NOT NULL,
    first_us BIGINT NOT NULL,
    last_us BIGINT NOT NULL,
    times BYTEA NOT NULL,
    PRIMARY KEY (server_id, day)
);

-- One metric of a day: its values, compressed, and what was counted of its hours.
CREATE TABLE sample_columns (
    server_id BIGINT NOT NULL,
    metric INTEGER NOT NULL,
    day BIGINT NOT NULL,
    readings BYTEA NOT NULL,
    hours BYTEA NOT NULL,
    PRIMARY KEY (server_id, metric, day)
);
-- They are compressed already, and small enough to stay where they are.
ALTER TABLE samples ALTER COLUMN readings SET STORAGE PLAIN;
ALTER TABLE sample_days ALTER COLUMN times SET STORAGE EXTERNAL;
ALTER TABLE sample_columns ALTER COLUMN readings SET STORAGE EXTERNAL;
ALTER TABLE sample_columns ALTER COLUMN hours SET STORAGE EXTERNAL;
ALTER TABLE sample_columns SET (toast_tuple_target = 8160);

-- The newest sample of each server. Rows change often, so that pages are left room.
CREATE TABLE sample_newest (
    server_id BIGINT NOT NULL PRIMARY KEY,
    at_us BIGINT NOT NULL,
    readings BYTEA NOT NULL
) WITH (fillfactor = 70);
