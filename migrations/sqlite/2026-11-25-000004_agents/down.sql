DROP TABLE operations;
DROP TABLE agents;
DROP TABLE enrollments;
