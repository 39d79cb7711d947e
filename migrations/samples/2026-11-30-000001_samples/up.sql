-- What was measured of servers. It lives in a file of its own, so that whoever stores it never waits for changes of the
-- fleet, nor those for it. Servers are named by their ids in the other file.

-- The newest samples, a row each: "readings" is a number and a value for each metric, see the codec.
CREATE TABLE samples (
    server_id INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    readings BLOB NOT NULL,
    PRIMARY KEY (server_id, at_us)
) STRICT, WITHOUT ROWID;

-- The others, by days of UTC since 1970: when there are samples in a day, compressed. "revision" grows with each change.
CREATE TABLE sample_days (
    server_id INTEGER NOT NULL,
    day INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    count INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    times BLOB NOT NULL,
    PRIMARY KEY (server_id, day)
) STRICT, WITHOUT ROWID;

-- One metric of a day: its values, compressed, and what was counted of its hours.
CREATE TABLE sample_columns (
    server_id INTEGER NOT NULL,
    metric INTEGER NOT NULL,
    day INTEGER NOT NULL,
    readings BLOB NOT NULL,
    hours BLOB NOT NULL,
    PRIMARY KEY (server_id, metric, day)
) STRICT;

-- The newest sample of each server.
CREATE TABLE sample_newest (
    server_id INTEGER PRIMARY KEY NOT NULL,
    at_us INTEGER NOT NULL,
    readings BLOB NOT NULL
) STRICT;
