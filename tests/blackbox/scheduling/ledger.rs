//! What is reserved is compared with what tasks hold, and set right.

use super::support::{act, becomes, check_books, cores, online, online_with, pool, refusals, task};
use crate::{
    on_both, server,
    support::{bearer, column, total},
};
use serde_json::{Value, json};
use tests::Backend;

on_both!(what_is_reserved_wrongly_is_told_and_mended, what_is_reserved_wrongly_is_mended_at_the_start);

async fn what_is_reserved_wrongly_is_told_and_mended(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = pool(&admin, "p", Some(8.0)).await;
    let edge = online_with(&admin, "edge", json!({ "total_cpu": 2, "pool_id": pool })).await;
    let id = task("t").with(json!({ "required_memory": 0.5 })).scheduled(&admin).await;
    server.sql().run(
        "UPDATE servers SET reserved_cpu_millis = 1500, reserved_memory_mib = 0; \
         UPDATE pools SET reserved_cpu_millis = 250",
    );
    let viewer = bearer(&admin, "viewer", "viewer", None).await;
    let amounts = |cpu: f64, memory: f64| json!({ "cpu": cpu, "memory": memory, "storage": 0.0, "gpu": 0 });
    let found = json!([
        { "target": format!("server:{edge}"), "reserved": amounts(1.5, 0.0), "held": amounts(1.0, 0.5) },
        { "target": format!("pool:{pool}"), "reserved": amounts(0.25, 0.5), "held": amounts(1.0, 0.5) },
    ]);
    let sorted = |list: Value| {
        let mut rows = list.as_array().unwrap().clone();
        rows.sort_by_key(ToString::to_string);
        rows
    };
    let told = viewer.get("/scheduling/ledger").await.expect(200);
    assert_eq!((told.at("/consistent"), sorted(told.at("/discrepancies"))), (json!(false), sorted(found.clone())));
    assert_eq!(viewer.get("/scheduling/ledger").await.expect(200).json, told.json, "looking changes nothing");
    viewer.post_empty("/scheduling/ledger/mend").await.expect(403);
    let mended = admin.post_empty("/scheduling/ledger/mend").await.expect(200);
    assert_eq!(sorted(mended.at("/mended")), sorted(found));
    check_books(&admin).await;
    assert_eq!(cores(&admin, edge).await, (json!(1.0), json!(1.0)));
    assert_eq!(admin.post_empty("/scheduling/ledger/mend").await.expect(200).at("/mended"), json!([]));
    assert_eq!(
        total(&admin, "/audit/logs?action=ledger.mend&outcome=success").await,
        1,
        "nothing to mend is nothing to record"
    );
    // What is known in memory was set right as well.
    task("second").scheduled(&admin).await;
    let third = task("third").post(&admin).await;
    assert_eq!(refusals(&admin, third).await, ["insufficient_cpu"]);
    act(&admin, id, "cancel").await.expect(200);
    becomes(&admin, third, "scheduled").await;
    check_books(&admin).await;
}

async fn what_is_reserved_wrongly_is_mended_at_the_start(backend: Backend) {
    let mut server = server(backend);
    let admin = server.admin();
    let edge = online(&admin, "edge", 2.0).await;
    task("t").scheduled(&admin).await;
    server.kill();
    server.sql().run("UPDATE servers SET reserved_cpu_millis = 2000");
    server.restart();
    let admin = server.admin();
    tests::eventually("the ledger to be mended", async || {
        (admin.get("/scheduling/ledger").await.expect(200).at("/consistent") == true).then_some(())
    })
    .await;
    assert_eq!(cores(&admin, edge).await, (json!(1.0), json!(1.0)));
    let rows = admin.get("/audit/logs?action=ledger.mend").await.expect(200);
    assert_eq!(column(&rows, "actor"), ["system:startup"]);
    task("second").scheduled(&admin).await;
    check_books(&admin).await;
}
