//! Placement in memory: one decision over fleets of several sizes, and a long queue onto one.

use crate::{
    Outcome, process,
    table::{Row, median, ms, percentile},
};
use domain::{
    clock::Timestamp,
    fleet::{Architecture, NewServer, Server, ServerStatus},
    ids::{ServerId, TaskId},
    scheduling::{Engine, FleetSnapshot, NewTask, PATIENCE, Task, TaskSpec, place, plan},
    text::{Name, Tags},
    units::Resources,
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const SIZES: [i64; 4] = [100, 1_000, 10_000, 100_000];
const ROUNDS: usize = 31;
const SERVERS: i64 = 5_000;
const TASKS: i64 = 50_000;

fn name(text: &str) -> Outcome<Name> {
    Ok(Name::parse(text)?)
}

/// Servers of a real fleet: of three architectures, some out of use, half full in different ways.
fn server(number: i64) -> Outcome<Server> {
    let architecture = match number % 5 {
        0 => Architecture::Arm64,
        1 => Architecture::Riscv64,
        _ => Architecture::X86_64,
    };
    let status = if number % 17 == 0 { ServerStatus::Maintenance } else { ServerStatus::Online };
    let new = NewServer {
        name: name(&format!("server-{number:06}"))?,
        architecture,
        status,
        capacity: Resources { cpu_millis: 32_000, memory_mib: 131_072, storage_mib: 2_000_000, gpus: number % 3 },
        gpu_model: None,
        location: Some(format!("hall 2, rack {}", number % 40)),
        cluster: Some("edge".to_owned()),
        zone: Some(format!("zone-{}", number % 3)),
        pool_id: None,
        tags: Tags::parse([("tier".to_owned(), "gold".to_owned())].into())?,
    };
    let reserved =
        Resources { cpu_millis: number * 37 % 16_000, memory_mib: number * 101 % 65_536, ..Resources::default() };
    Ok(Server { reserved, ..new.into_server(ServerId(number), Timestamp::UNIX_EPOCH) })
}

fn spec(number: i64) -> Outcome<TaskSpec> {
    let demand = Resources {
        cpu_millis: 500 + number % 7 * 250,
        memory_mib: 512 + number % 5 * 512,
        storage_mib: 1_024,
        gpus: 0,
    };
    Ok(TaskSpec::new(name("job")?, demand))
}

/// One decision, without reasons and with all of them.
pub(crate) fn decisions() -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for size in SIZES {
        let mut fleet = FleetSnapshot::default();
        for number in 1..=size {
            fleet.upsert_server(&server(number)?);
        }
        let task = spec(3)?;
        let fast = timed(|| _ = black_box(place(black_box(&fleet), black_box(&task))));
        rows.push(row(format!("placement of one task on {size} servers"), fast, size, "< 1 ms at 10,000"));
        let full = timed(|| _ = black_box(plan(black_box(&fleet), black_box(&task))));
        rows.push(row(format!("the same with every server's reasons, {size}"), full, size, "< 10 ms at 10,000"));
    }
    Ok(rows)
}

fn timed(work: impl Fn()) -> Duration {
    let times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed()
        })
        .collect();
    median(&times, |time| *time).unwrap_or_default()
}

fn row(measurement: String, time: Duration, size: i64, aim: &'static str) -> Row {
    let each = time.as_secs_f64() * 1e9 / f64::from(i32::try_from(size).unwrap_or(i32::MAX));
    Row {
        measurement,
        result: format!("{:.3} ms", time.as_secs_f64() * 1000.0),
        wall: format!("{each:.1} ns a server"),
        cpu: String::new(),
        aim: if size == 10_000 { aim } else { "" },
    }
}

/// A long queue onto a fleet, decided one after the other, each counting with all before it.
pub(crate) fn queue() -> Outcome<Row> {
    let mut engine = Engine::new(PATIENCE);
    for number in 1..=SERVERS {
        engine.server(&Server { reserved: Resources::default(), ..server(number)? });
    }
    let now = Timestamp::UNIX_EPOCH;
    for number in 1..=TASKS {
        let task: Task = NewTask { spec: spec(number)? }.into_task(TaskId(number), now);
        engine.task(&task);
    }
    let (cpu, began) = (process::cpu(std::process::id())?, Instant::now());
    let mut times = Vec::with_capacity(usize::try_from(TASKS)?);
    loop {
        let asked = Instant::now();
        if engine.next(now, 1).is_empty() && !engine.has_work() {
            break;
        }
        times.push(asked.elapsed());
    }
    let (wall, cpu) = (began.elapsed(), process::cpu(std::process::id())?.saturating_sub(cpu));
    times.sort_unstable();
    let placed = u32::try_from(times.len())?;
    let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
    Ok(Row {
        measurement: format!("{placed} of {TASKS} tasks onto {SERVERS} servers, in memory"),
        result: format!("{:.0}/s", f64::from(placed) / wall.as_secs_f64()),
        wall: format!("{:.3} / {:.3} ms", p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3),
        cpu: ms(cpu / placed.max(1)),
        aim: "> 20000/s, p99 < 1 ms",
    })
}
