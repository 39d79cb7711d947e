ALTER TABLE servers ADD COLUMN search_text TEXT NOT NULL DEFAULT '';
UPDATE servers SET search_text = lower(concat_ws(char(10), name, location, cluster, zone, gpu_model,
    (SELECT group_concat(key || ':' || value, char(10)) FROM json_each(servers.tags))));
CREATE INDEX servers_cluster ON servers (cluster);
CREATE INDEX servers_zone ON servers (zone);
CREATE TABLE server_tags (
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (server_id, key)
) STRICT;
CREATE INDEX server_tags_pair ON server_tags (key, value, server_id);
INSERT INTO server_tags (server_id, key, value)
SELECT servers.id, tag.key, tag.value FROM servers, json_each(servers.tags) AS tag;
