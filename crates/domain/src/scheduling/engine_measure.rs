use super::*;
use crate::scheduling::{
    TaskSpec, explain,
    fixtures::{cores, cpu_quota, millis, pool, server, spec, tags, task},
    place, plan,
};
use crate::testing::START;
use std::hint::black_box;
use std::time::Instant;

fn big() -> Resources {
    Resources { cpu_millis: 64_000, memory_mib: 262_144, storage_mib: 4_194_304, gpus: 4 }
}
fn demand(n: i64) -> Resources {
    Resources { cpu_millis: 500 + n % 7 * 250, memory_mib: 1024 + n % 5 * 512, storage_mib: 10_240, gpus: 0 }
}

fn fleet(n: i64, pools: i64) -> FleetSnapshot {
    let mut fleet = FleetSnapshot::default();
    for id in 1..=pools {
        fleet.upsert_pool(&pool(id, cpu_quota(1_000_000_000)), cores(1));
    }
    for id in 1..=n {
        let mut s = server(id, big());
        s.reserved = Resources {
            cpu_millis: id * 7919 % 60_000,
            memory_mib: id * 104_729 % 200_000,
            storage_mib: id % 1000,
            gpus: id % 3,
        };
        s.tags =
            tags(&[("zone", if id % 3 == 0 { "a" } else { "b" }), ("env", "prod"), ("rack", &format!("r{}", id % 40))]);
        s.pool_id = (pools > 0).then(|| PoolId(1 + id % pools));
        fleet.upsert_server(&s);
    }
    fleet
}

fn time(what: &str, times: u32, mut f: impl FnMut()) {
    f();
    let mut all: Vec<u128> = (0..times)
        .map(|_| {
            let t = Instant::now();
            f();
            t.elapsed().as_nanos()
        })
        .collect();
    all.sort_unstable();
    println!(
        "{what}: min {} us, median {} us, p99 {} us",
        all[0] / 1000,
        all[all.len() / 2] / 1000,
        all[all.len() * 99 / 100] / 1000
    );
}

#[test]
#[ignore = "a measurement"]
fn measure_placement() {
    for pools in [0, 100] {
        let fleet = fleet(10_000, pools);
        let fits = spec(demand(3));
        println!("row {} B, {pools} pools", std::mem::size_of::<super::super::snapshot::ServerRow>());
        time("place fits", 500, || {
            black_box(place(&fleet, black_box(&fits)));
        });
        let none = spec(Resources { cpu_millis: 65_000, ..demand(1) });
        time("place fits nowhere", 500, || {
            black_box(place(&fleet, black_box(&none)));
        });
        let all = TaskSpec { labels: tags(&[("env", "prod")]), ..fits.clone() };
        time("place label of all", 500, || {
            black_box(place(&fleet, black_box(&all)));
        });
        let two = TaskSpec { labels: tags(&[("env", "prod"), ("zone", "a")]), ..fits.clone() };
        time("place label of a third", 500, || {
            black_box(place(&fleet, black_box(&two)));
        });
        let no = TaskSpec { labels: tags(&[("env", "none")]), ..fits.clone() };
        time("place label of none", 500, || {
            black_box(place(&fleet, black_box(&no)));
        });
        time("plan fits", 50, || {
            black_box(plan(&fleet, black_box(&fits)));
        });
        time("plan fits nowhere", 50, || {
            black_box(plan(&fleet, black_box(&none)));
        });
        let worst = TaskSpec {
            driver: crate::scheduling::TaskDriver::Exec,
            architecture: crate::scheduling::ArchitectureNeed::Only(crate::fleet::Architecture::Arm64),
            labels: tags(&[("a", "b")]),
            pool_id: Some(PoolId(777)),
            ..spec(Resources { cpu_millis: 1 << 40, memory_mib: 1 << 40, storage_mib: 1 << 40, gpus: 999 })
        };
        time("plan nine reasons each", 50, || {
            black_box(plan(&fleet, black_box(&worst)));
        });
        let p = plan(&fleet, &worst);
        time("explain", 50, || {
            black_box(explain(&p));
        });
        time("all sentences", 20, || {
            for c in &p.candidates {
                black_box(p.reasons(c));
            }
        });
    }
}

fn run(limit: usize, spec_of: impl Fn(i64) -> TaskSpec, servers: i64, tasks: i64) {
    let mut engine = Engine::default();
    for id in 1..=servers {
        engine.server(&server(id, big()));
    }
    let all: Vec<Task> = (1..=tasks).map(|id| task(id, spec_of(id))).collect();
    let t = Instant::now();
    for task in &all {
        engine.task(task);
    }
    println!("enqueue {tasks}: {} ms, {} classes", t.elapsed().as_millis(), engine.queue.class_count());
    let mut held = std::collections::HashMap::new();
    let (mut calls, mut spent, mut commit, mut n) = (Vec::new(), 0, 0, 0_u128);
    loop {
        let t = Instant::now();
        let decisions = engine.next(START, limit);
        let e = t.elapsed().as_nanos();
        if decisions.is_empty() && !engine.has_work() {
            break;
        }
        spent += e;
        calls.push(e);
        n += decisions.len() as u128;
        let t = Instant::now();
        for d in decisions {
            let r = held.entry(d.server).or_insert(Resources::default());
            *r = r.plus(d.demand);
            let placed = all[usize::try_from(d.task.0 - 1).unwrap()].placed(d.server, START).unwrap();
            engine.committed(&placed, (d.server, *r), None);
        }
        commit += t.elapsed().as_nanos();
    }
    calls.sort_unstable();
    println!(
        "limit {limit}: {n} decisions in {} ms = {}/s; call min {} p10 {} p50 {} us p99 {} us max {} us; commit {} ms; judgements {}",
        spent / 1_000_000,
        n * 1_000_000_000 / spent,
        calls[0] / 1000,
        calls[calls.len() / 10] / 1000,
        calls[calls.len() / 2] / 1000,
        calls[calls.len() * 99 / 100] / 1000,
        calls.last().unwrap() / 1000,
        commit / 1_000_000,
        engine.judgements()
    );
}

#[test]
#[ignore = "a measurement"]
fn measure_engine() {
    run(1, |n| spec(demand(n)), 5000, 50_000);
    run(256, |n| spec(demand(n)), 5000, 50_000);
    println!("each task different");
    run(
        256,
        |n| spec(Resources { cpu_millis: 500 + n % 50_000 / 20, memory_mib: 1024 + n, storage_mib: 10_240, gpus: 0 }),
        5000,
        50_000,
    );
    println!("more than fits");
    run(256, |n| spec(Resources { cpu_millis: 10_000 + n % 3000, ..demand(n) }), 5000, 50_000);
}

#[test]
#[ignore = "a measurement"]
fn measure_sleepers() {
    for (what, f) in [
        ("same", (|_| 2000) as fn(i64) -> i64),
        ("different, too large", |n| 1001 + n),
        ("different, some fit", |n| 600 + n % 60_000),
    ] {
        let mut engine = Engine::default();
        for id in 1..=1000 {
            let mut s = server(id, cores(4));
            s.reserved = cores(4);
            engine.server(&s);
        }
        let t = Instant::now();
        for n in 0..100_000 {
            engine.task(&task(n + 1, spec(millis(f(n)))));
        }
        let enq = t.elapsed().as_millis();
        let t = Instant::now();
        while engine.has_work() {
            engine.next(START, 1000);
        }
        println!("{what}: enqueue {enq} ms, first pass {} ms", t.elapsed().as_millis());
        let before = engine.judgements();
        for round in 0..3 {
            let t = Instant::now();
            engine.server_reserved(ServerId(7 + round), cores(3));
            let mut placed = 0;
            while engine.has_work() {
                placed += engine.next(START, 1000).len();
            }
            println!(
                "  completion: {} us, placed {placed}, judged {}",
                t.elapsed().as_micros(),
                engine.judgements() - before
            );
        }
        let t = Instant::now();
        let mut p = 0;
        let late = START + TimeDelta::minutes(11);
        p += engine.next(late, 1000).len();
        println!(
            "  first call after patience {} us, placed {p}, holds {}, wake_at {:?}",
            t.elapsed().as_micros(),
            engine.holds.len(),
            engine.wake_at(late).map(|at| at - late)
        );
    }
}
