//! Measures the product as a user gets it: the release program, over sockets, on durable databases.
//!
//! Client and server share the machine, so the client is as small as it can be: requests are bytes made beforehand,
//! and of an answer only status and length are read. See docs/performance.md for what the numbers mean.
#![expect(clippy::print_stdout, reason = "the table of results is what this program is for")]

mod agents;
mod containers;
mod disk;
mod http;
mod idle;
mod list;
mod load;
mod output;
mod placement;
mod process;
mod samples;
mod site;
mod slurm;
mod start;
mod table;
mod tasks;
mod writes;

use site::Site;
use std::{error::Error, process::ExitCode, time::Duration};
use table::Row;

type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str =
    "usage: starlink-bench [list|start|memory|write|placement|task|slurm|agent|container|sample] [--seconds N]";

/// What is to be measured, and for how long at a time.
struct Options {
    filter: Option<String>,
    period: Duration,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self { filter: None, period: Duration::from_secs(5) };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seconds" => options.period = Duration::from_secs(arguments.next()?.parse().ok()?),
                "list" | "start" | "memory" | "write" | "placement" | "task" | "slurm" | "agent" | "container"
                | "sample" => {
                    options.filter = Some(argument);
                }
                _ => return None,
            }
        }
        (!options.period.is_zero()).then_some(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| filter == name)
    }
}

fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    // One thread: what the client does not use, the server can.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&options)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("starlink-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Outcome<()> {
    table::heading();
    if options.wants("placement") {
        print(&placement::decisions()?);
        print(&[placement::queue()?]);
    }
    let cluster = tests::Cluster::start(&[]);
    let sites = [Site::sqlite(), Site::postgres(&cluster)];
    if ["list", "start", "memory"].iter().any(|name| options.wants(name)) {
        for site in &sites {
            full_house(options, site).await?;
        }
    }
    if options.wants("agent") {
        agents(&sites).await?;
    }
    if options.wants("container") {
        for site in &sites {
            print(&containers::measure(site, options.period).await?);
        }
        if let Some(site) = sites.first() {
            print(&output::measure(site).await?);
        }
    }
    if options.wants("sample") {
        for site in &sites {
            print(&samples::measure(site, options.period).await?);
        }
    }
    if options.wants("write") {
        print(&writes::measure(&sites, options.period).await?);
    }
    if options.wants("task") {
        print(&tasks::measure(&sites, options.period).await?);
    }
    // In the same run as the tasks that it is held against.
    if options.wants("task") || options.wants("slurm") {
        print(&slurm::measure(options.period).await);
    }
    Ok(())
}

/// What is measured on a database with 10,000 servers, and before it has them.
async fn full_house(options: &Options, site: &Site) -> Outcome<()> {
    let mut server = site.start()?;
    let mut memory = Vec::new();
    list::ask(&server, 5).await?;
    memory.push(process::memory_row(site, "at rest", server.pid())?);
    list::fill(&server).await?;
    if options.wants("list") || options.wants("memory") {
        let rows = list::measure(site, &server, options.period).await?;
        print(if options.wants("list") { &rows } else { &[] });
    }
    memory.push(process::memory_row(site, "after the load", server.pid())?);
    if options.wants("start") {
        print(&[start::measure(site, &mut server)?]);
    }
    if options.wants("memory") {
        server.kill();
        server.restart();
        list::ask(&server, 5).await?;
        memory.push(process::memory_row(site, "at rest, 10,000 servers", server.pid())?);
        print(&memory);
    }
    Ok(())
}

/// Agents, on SQLite: what they cost is not the database's.
async fn agents(sites: &[Site]) -> Outcome<()> {
    for site in sites {
        print(&[agents::processes(site).await?]);
    }
    let Some(site) = sites.first() else { return Ok(()) };
    print(&agents::containers(site).await?);
    print(&agents::at_rest(site).await?);
    print(&[idle::measure(site).await?]);
    Ok(())
}

fn print(rows: &[Row]) {
    rows.iter().for_each(Row::print);
}
