DROP TABLE sample_newest;
DROP TABLE sample_columns;
DROP TABLE sample_days;
DROP TABLE samples;
