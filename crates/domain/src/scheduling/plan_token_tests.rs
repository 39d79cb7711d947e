use super::*;
use crate::{
    fleet::Server,
    ids::{PoolId, ServerId, TaskId},
    pools::Quotas,
    scheduling::{
        Engine, Environment,
        fixtures::{cores, cpu_quota, pool, server, spec, task},
    },
    testing::{START, name},
    units::Resources,
};

/// A server of eight cores in a pool, one of four without a pool, and a small one in another pool.
fn engine() -> Engine {
    let mut engine = Engine::default();
    engine.pool(&pool(9, cpu_quota(6000)), Resources::default());
    engine.pool(&pool(8, Quotas::default()), Resources::default());
    engine.server(&in_pool(1, 8, 9));
    engine.server(&server(2, cores(4)));
    engine.server(&in_pool(3, 1, 8));
    engine
}

fn in_pool(id: i64, each: i64, pool: i64) -> Server {
    Server { pool_id: Some(PoolId(pool)), ..server(id, cores(each)) }
}

fn token(engine: &Engine, spec: &TaskSpec) -> String {
    token_of(&Seal::new(&[7; 32]), spec, &engine.plan_for(spec), engine.fleet())
}

/// Whether the token of a plan is the same once something has happened to the fleet.
#[track_caller]
fn check(spec: &TaskSpec, what: &str, change: impl FnOnce(&mut Engine), same: bool) {
    let mut engine = engine();
    let before = token(&engine, spec);
    assert_eq!(before, token(&engine, spec), "planning changes nothing");
    change(&mut engine);
    assert_eq!(token(&engine, spec) == before, same, "{what}");
}

#[test]
fn a_token_is_stale_once_its_server_or_pool_has_other_room() {
    let spec = spec(cores(2));
    assert_eq!(engine().plan_for(&spec).placement.unwrap().0, ServerId(1));
    check(&spec, "reserved", |engine| engine.server_reserved(ServerId(1), cores(1)), false);
    check(&spec, "claimed", |engine| engine.claim_for(&spec).map_or((), |_| ()), false);
    check(&spec, "larger", |engine| engine.server(&in_pool(1, 9, 9)), false);
    check(&spec, "of the quota", |engine| engine.pool_reserved(PoolId(9), cores(1)), false);
    check(&spec, "another quota", |engine| engine.pool(&pool(9, cpu_quota(5000)), Resources::default()), false);
    check(&spec, "no quota", |engine| engine.pool(&pool(9, Quotas::default()), Resources::default()), false);
    check(&spec, "cordoned", |engine| engine.server(&Server { cordoned: true, ..in_pool(1, 8, 9) }), false);
    check(&spec, "gone", |engine| engine.server_gone(ServerId(1)), false);
    check(&spec, "in no pool", |engine| engine.server(&server(1, cores(8))), false);
    check(&spec, "not the best any more", |engine| engine.server(&server(4, cores(90))), false);
}

#[test]
fn a_token_is_good_whatever_happens_where_its_task_does_not_go() {
    let spec = spec(cores(2));
    check(&spec, "nothing", |_| {}, true);
    check(&spec, "reserved elsewhere", |engine| engine.server_reserved(ServerId(2), cores(1)), true);
    check(&spec, "in another pool", |engine| engine.pool_reserved(PoolId(8), cores(1)), true);
    check(&spec, "a worse server is new", |engine| engine.server(&server(4, cores(2))), true);
    check(&spec, "another one is gone", |engine| engine.server_gone(ServerId(3)), true);
    check(&spec, "a task waits", |engine| engine.task(&task(1, TaskSpec { max_attempts: 9, ..spec.clone() })), true);
    check(
        &spec,
        "taken and given back",
        |engine| {
            engine.server_reserved(ServerId(1), cores(1));
            engine.server_reserved(ServerId(1), cores(0));
        },
        true,
    );
}

#[test]
fn a_token_of_a_task_that_fits_nowhere_is_stale_once_any_server_says_something_else() {
    let spec = spec(cores(9));
    assert!(engine().plan_for(&spec).placement.is_none());
    check(&spec, "nothing", |_| {}, true);
    check(&spec, "a little less room", |engine| engine.server_reserved(ServerId(2), cores(1)), false);
    check(&spec, "a new server", |engine| engine.server(&server(4, cores(1))), false);
    check(&spec, "it fits now", |engine| engine.server(&server(4, cores(9))), false);
}

#[test]
fn a_token_is_of_one_task_and_one_key() {
    let engine = engine();
    let plain = spec(cores(2));
    let env = |value: &str| Environment::parse([("SECRET".to_owned(), value.to_owned())].into()).unwrap();
    let mut others = vec![
        TaskSpec { name: name("other"), ..plain.clone() },
        TaskSpec { max_attempts: 2, ..plain.clone() },
        TaskSpec { deadline: Some(START), ..plain.clone() },
        TaskSpec { env: env("one"), ..plain.clone() },
        TaskSpec { env: env("two"), ..plain.clone() },
        spec(cores(3)),
        plain.clone(),
    ];
    let mut tokens: Vec<String> = others.iter().map(|spec| token(&engine, spec)).collect();
    tokens.push(token_of(&Seal::new(&[8; 32]), &plain, &engine.plan_for(&plain), engine.fleet()));
    let count = tokens.len();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), count);
    assert!(tokens.iter().all(|token| token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit())));
    assert_eq!(others.pop(), Some(plain));
}

#[test]
fn a_token_of_a_task_that_holds_a_server_is_of_where_it_may_go() {
    let mut engine = engine();
    let stored = task(1, spec(cores(2)));
    engine.task(&stored);
    let of = |engine: &Engine, plan: &Plan| token_of(&Seal::new(&[7; 32]), &stored.spec, plan, engine.fleet());
    assert_eq!(of(&engine, &engine.plan_of(&stored)), of(&engine, &engine.plan_for(&stored.spec)));
    let before = of(&engine, &engine.plan_of(&stored));
    engine.task_gone(TaskId(1));
    assert_eq!(of(&engine, &engine.plan_of(&stored)), before, "where it goes is what matters");
}
