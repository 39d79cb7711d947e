ALTER TABLE servers ADD COLUMN search_text TEXT NOT NULL DEFAULT '';
UPDATE servers SET search_text = lower(concat_ws(E'\n', name, location, cluster, zone, gpu_model,
    (SELECT string_agg(key || ':' || value, E'\n') FROM json_each_text(servers.tags::json))));
CREATE INDEX servers_cluster ON servers (cluster);
CREATE INDEX servers_zone ON servers (zone);
CREATE TABLE server_tags (
    server_id BIGINT NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    key TEXT COLLATE "C" NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (server_id, key)
);
CREATE INDEX server_tags_pair ON server_tags (key, value, server_id);
INSERT INTO server_tags (server_id, key, value)
SELECT servers.id, tag.key, tag.value FROM servers, json_each_text(servers.tags::json) AS tag;
