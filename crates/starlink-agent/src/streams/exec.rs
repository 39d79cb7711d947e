//! A program in a container, with somebody at the other end of the stream.

use super::{
    Shared,
    containers::{no_engine, not_running, refused},
    link::{Closing, Gone, Link},
};
use crate::drivers::docker::program::{Begun, Program};
use domain::{
    containers::wire::{ExecQuery, ExecSaying, ExecWish},
    fleet::protocol::LogStream,
};
use tokio_tungstenite::tungstenite::Message;

impl Shared {
    pub(super) async fn container_exec(&self, link: &mut Link, query: &ExecQuery) -> Result<Closing, Gone> {
        let Some(containers) = self.sources.drivers.containers() else { return Ok(no_engine()) };
        if let Err(reason) = query.check() {
            return Ok(Closing::new(4400, reason));
        }
        // Whoever goes away meanwhile is noticed when it runs, and it is ended then.
        let mut program = match containers.begin(query).await {
            Ok(Begun::Running(program)) => program,
            Ok(Begun::Failed { code, words }) => {
                link.send_message(output(LogStream::Stderr, words.as_bytes())).await?;
                link.send(&ExecSaying::Exited { code: Some(code) }).await?;
                return Ok(Closing::end());
            }
            Ok(Begun::NotRunning) => return Ok(not_running()),
            Err(trouble) => return Ok(refused(&trouble)),
        };
        link.send(&ExecSaying::Started).await?;
        if let Some(closing) = converse(link, &mut program).await? {
            return Ok(closing);
        }
        let code = program.control.code().await;
        if code.is_some() {
            program.control.let_go();
        }
        link.send(&ExecSaying::Exited { code }).await?;
        Ok(Closing::end())
    }
}

/// Hands to and fro until the output has ended.
async fn converse(link: &mut Link, program: &mut Program) -> Result<Option<Closing>, Gone> {
    let Program { output: written, input, control } = program;
    loop {
        let room = if input.has_room() { Room::ForMore } else { Room::ForNone };
        tokio::select! {
            some = written.next() => match some {
                Ok(Some((stream, bytes))) => link.send_message(output(stream, &bytes)).await?,
                Ok(None) => return Ok(None),
                Err(trouble) => return Ok(Some(refused(&trouble))),
            },
            () = input.feed() => {}
            heard = hear(link, room) => match heard? {
                Message::Binary(bytes) => input.push(bytes),
                Message::Text(text) => match serde_json::from_str(&text) {
                    Ok(ExecWish::Resize(size)) => control.resize(size).await,
                    Ok(ExecWish::EndInput) => input.end(),
                    Ok(ExecWish::Unknown) | Err(_) => {}
                },
                _ => {}
            },
        }
    }
}

/// Whether the program can take more input.
#[derive(Clone, Copy)]
enum Room {
    ForMore,
    ForNone,
}

/// What comes from the other side. What there is no room for stays with it.
async fn hear(link: &mut Link, room: Room) -> Result<Message, Gone> {
    match room {
        Room::ForMore => link.attend().await,
        Room::ForNone => Err(link.watch().await),
    }
}

fn output(stream: LogStream, bytes: &[u8]) -> Message {
    let first = if stream == LogStream::Stderr { 2 } else { 1 };
    Message::binary([&[first], bytes].concat())
}
