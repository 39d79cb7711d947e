//! The line between agents and their server, which a test can cut.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::mpsc,
    thread,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Passes on what it gets, as long as it is let. It has a thread of its own, so that a test may wait for other things.
pub(crate) struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    target: String,
    state: State,
    /// Counts how often everything was cut.
    cuts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything goes through.
    Open,
    /// Whoever connects is hung up on.
    Refusing,
    /// Nothing goes through, and nobody is told.
    Frozen,
}

impl Proxy {
    /// A line to a server (`http://host:port`).
    pub(crate) fn to(base: &str) -> Self {
        let line = Line { target: host(base), state: State::Open, cuts: 0 };
        let (line, follow) = watch::channel(line);
        let (told, address) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, follow).await;
            });
        });
        Self { address: address.recv().unwrap(), line }
    }

    /// Where agents find it.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The server is elsewhere now.
    pub(crate) fn point(&self, base: &str) {
        self.line.send_modify(|line| line.target = host(base));
    }

    /// Hangs up on everybody, and on whoever connects from now on.
    pub(crate) fn cut(&self) {
        self.line.send_modify(|line| {
            line.cuts += 1;
            line.state = State::Refusing;
        });
    }

    /// Hangs up on everybody, who may connect again at once.
    pub(crate) fn hang_up(&self) {
        self.line.send_modify(|line| line.cuts += 1);
    }

    /// Keeps everything that is sent to itself.
    pub(crate) fn freeze(&self) {
        self.line.send_modify(|line| line.state = State::Frozen);
    }

    /// Everything goes through again, also what was held back.
    pub(crate) fn mend(&self) {
        self.line.send_modify(|line| line.state = State::Open);
    }
}

fn host(base: &str) -> String {
    base.trim_start_matches("http://").to_owned()
}

/// Until nobody can change the line any more.
async fn serve(listener: TcpListener, line: watch::Receiver<Line>) {
    let mut ends = line.clone();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                tokio::spawn(carry(client, line.clone()));
            }
            gone = ends.changed() => {
                if gone.is_err() {
                    return;
                }
            }
        }
    }
}

async fn carry(mut client: TcpStream, mut line: watch::Receiver<Line>) {
    let born = line.borrow().cuts;
    let mut end = line.clone();
    let carried = async {
        if line.borrow().state == State::Refusing {
            return;
        }
        let Ok(open) = line.wait_for(|line| line.state != State::Frozen).await.map(|line| line.target.clone()) else {
            return;
        };
        let Ok(mut server) = TcpStream::connect(open).await else { return };
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::join!(pump(from_client, to_server, line.clone()), pump(from_server, to_client, line.clone()));
    };
    tokio::select! {
        () = carried => {}
        _ = end.wait_for(|line| line.cuts > born) => {}
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut line: watch::Receiver<Line>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or_default();
        let open = line.wait_for(|line| line.state != State::Frozen).await.is_ok();
        if read == 0 || !open || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
