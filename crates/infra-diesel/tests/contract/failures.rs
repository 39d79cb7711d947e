//! What the database's own refusals mean for a batch of writes.

use crate::store::{Store, change, new_server};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query, sql_types::BigInt};
use domain::{Error, fleet::Servers};
use infra_diesel::DatabaseUrl;

/// Registering a server cuts the time of its transaction's further statements short, and its audit row then takes longer.
/// A sequence counts the attempts: no rollback takes its numbers back.
const SLOW_LOG: &str = "
    CREATE SEQUENCE tries;
    CREATE FUNCTION hurry() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM set_config('statement_timeout', '50ms', true); RETURN NEW; END $$;
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM nextval('tries'); PERFORM pg_sleep(20); RETURN NEW; END $$;
    CREATE TRIGGER hurry BEFORE INSERT ON servers FOR EACH ROW EXECUTE FUNCTION hurry();
    CREATE TRIGGER dawdle BEFORE INSERT ON audit_logs FOR EACH ROW EXECUTE FUNCTION dawdle();
";

#[derive(QueryableByName)]
struct Tries {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

fn tries(store: &Store) -> i64 {
    let DatabaseUrl::Postgres(url) = &store.url else { unreachable!("the store is on PostgreSQL") };
    let query = sql_query("SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS count FROM tries");
    query.get_result::<Tries>(&mut PgConnection::establish(url).unwrap()).unwrap().count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_not_tried_again() {
    let store = Store::postgres();
    store.sql(SLOW_LOG);
    match store.servers.create(new_server("edge-1"), change("server.create")).await {
        Err(Error::Unavailable { reason, .. }) => assert!(reason.contains("nothing was changed"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(tries(&store), 1);
    store.sql("DROP TRIGGER dawdle ON audit_logs");
    store.server("edge-1").await;
    store.check_chain(1).await;
}
