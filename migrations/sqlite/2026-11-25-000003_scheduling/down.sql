ALTER TABLE pools DROP COLUMN reserved_cpu_millis;
ALTER TABLE pools DROP COLUMN reserved_memory_mib;
ALTER TABLE pools DROP COLUMN reserved_storage_mib;
ALTER TABLE pools DROP COLUMN reserved_gpus;
DROP TABLE attempts;
DROP TABLE tasks;
