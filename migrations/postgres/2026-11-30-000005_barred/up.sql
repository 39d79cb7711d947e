-- The architectures on which attempts of a task ended with an exec format error, as a list of words.
ALTER TABLE tasks ADD COLUMN barred TEXT NOT NULL DEFAULT '[]';
