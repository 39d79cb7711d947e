ALTER TABLE operations DROP COLUMN deed;
DROP TABLE container_reports;
DROP TABLE containers;
