//! From starting the program to the first answer that it is ready, on a database that is there already.

use crate::{
    Outcome, process,
    site::Site,
    table::{Row, median, ms},
};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};
use tests::Server;

const TIMES: u32 = 10;
const PAUSE: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(30);
const QUESTION: &[u8] = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n";
const ANSWER: [u8; 12] = *b"HTTP/1.1 200";

/// The median of some starts of a server that listens at the same address each time.
pub(crate) fn measure(site: &Site, server: &mut Server) -> Outcome<Row> {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        times.push(once(server)?);
    }
    let (wall, cpu) = median(&times, |(wall, _)| *wall).ok_or("nothing was measured")?;
    let slowest = times.iter().map(|(wall, _)| *wall).max().unwrap_or_default();
    Ok(Row {
        measurement: format!("start to ready, 10,000 servers, {}", site.name),
        result: ms(wall),
        wall: format!("at most {}", ms(slowest)),
        cpu: ms(cpu),
        aim: "< 100 ms",
    })
}

/// How long one start takes, and the CPU time that the process has used by then.
fn once(server: &mut Server) -> Outcome<(Duration, Duration)> {
    server.terminate();
    let address = server.base.trim_start_matches("http://").to_owned();
    let ready = std::thread::scope(|scope| {
        let began = Instant::now();
        let starter = scope.spawn(|| server.restart());
        while !is_ready(&address).unwrap_or_default() && began.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
        let ready = began.elapsed();
        starter.join().map(|()| ready)
    });
    let ready = ready.map_err(|_panic| "the server did not start")?;
    if ready >= PATIENCE {
        return Err("the server was not ready in time".into());
    }
    Ok((ready, process::cpu(server.pid())?))
}

fn is_ready(address: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(QUESTION)?;
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer)?;
    Ok(answer == ANSWER)
}
