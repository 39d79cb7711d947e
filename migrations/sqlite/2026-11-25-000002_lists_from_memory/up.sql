-- Lists of servers are made from memory: nothing is looked for in these any more.
DROP TABLE server_tags;
DROP INDEX servers_cluster;
DROP INDEX servers_zone;
ALTER TABLE servers DROP COLUMN search_text;
