//! A container whose output a test writes, and an agent that shows it.

use super::{
    block::{Format, View},
    feed::{Feed, Opener},
    hub::{Hubs, STAMINA, Seat},
    reader::{Archive, Past, Reader, Step},
};
use crate::rooms::fleet::{Cause, Sent};
use domain::{
    clock::Timestamp,
    containers::{
        EngineId, LogCursor,
        wire::{ContainerLogQuery, LogBatch},
    },
    fleet::protocol::{LogLine, LogStream},
    ids::ContainerId,
};
use futures_util::{StreamExt, stream};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{Semaphore, watch};

/// Line number `n` of a container's output.
pub(super) fn line(n: u64, stream: LogStream) -> LogLine {
    let cursor = LogCursor { time: n + 1, count: 1, step: 1, ..LogCursor::default() };
    let at = Timestamp::from_timestamp(1_700_000_000, 0).unwrap() + Duration::from_millis(n);
    LogLine { cursor: cursor.to_string(), at, stream, text: format!("line {n}"), continues: false }
}

/// The container and its agent.
pub(super) struct Played {
    lines: Mutex<Vec<LogLine>>,
    grown: watch::Sender<()>,
    /// How often the connection was cut, and whether the container is gone.
    cut: watch::Sender<(u32, bool)>,
    /// What was asked for.
    pub(super) asked: Mutex<Vec<ContainerLogQuery>>,
    /// How many lines it sends at once.
    batch: usize,
}

impl Played {
    pub(super) fn new(batch: usize) -> Arc<Self> {
        Arc::new(Self {
            lines: Mutex::default(),
            grown: watch::Sender::new(()),
            cut: watch::Sender::new((0, false)),
            asked: Mutex::default(),
            batch,
        })
    }

    /// Has the container write so many lines.
    pub(super) fn write(&self, count: u64) {
        let mut lines = self.lines.lock().unwrap();
        let first = u64::try_from(lines.len()).unwrap();
        lines.extend((first..first + count).map(|n| line(n, LogStream::Stdout)));
        drop(lines);
        self.grown.send_replace(());
    }

    /// Cuts the connection.
    pub(super) fn cut(&self) {
        self.cut.send_modify(|(cuts, _)| *cuts += 1);
    }

    /// Removes the container.
    pub(super) fn remove(&self) {
        self.cut.send_modify(|(_, gone)| *gone = true);
    }

    /// How many streams that follow were ordered.
    pub(super) fn follows(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|query| query.follow).count()
    }

    pub(super) fn opener(self: &Arc<Self>) -> Opener {
        let played = self.clone();
        Arc::new(move |query| {
            played.asked.lock().unwrap().push(query.clone());
            let place = played.start(&query);
            let show =
                Show { cut: played.cut.subscribe(), grown: played.grown.subscribe(), place, query, ended: false };
            let cuts = show.cut.borrow().0;
            let sent = stream::unfold((played.clone(), show), move |(played, mut show)| async move {
                let sent = played.next(&mut show, cuts).await?;
                Some((sent, (played, show)))
            });
            Ok(stream::iter([Sent::Opened]).chain(sent).boxed())
        })
    }

    fn start(&self, query: &ContainerLogQuery) -> usize {
        let lines = self.lines.lock().unwrap();
        let after = query.after.as_ref().map(|after| LogCursor::parse(after).unwrap());
        let first =
            lines.partition_point(|line| after.is_some_and(|after| LogCursor::parse(&line.cursor).unwrap() <= after));
        let tail = query.tail.map_or(usize::MAX, |tail| usize::try_from(tail).unwrap());
        first.max(lines.len().saturating_sub(tail))
    }

    async fn next(&self, show: &mut Show, cuts: u32) -> Option<Sent> {
        if show.ended {
            return None;
        }
        loop {
            let (now, gone) = *show.cut.borrow_and_update();
            show.grown.borrow_and_update();
            if now > cuts {
                show.ended = true;
                return Some(Sent::End(Some(Cause { code: 0, reason: "the agent has gone".to_owned() })));
            }
            let lines: Vec<_> = self.lines.lock().unwrap().iter().skip(show.place).take(self.batch).cloned().collect();
            if !lines.is_empty() {
                show.place += lines.len();
                let batch = LogBatch { dropped: 0, lines };
                return Some(Sent::Message(serde_json::to_string(&batch).unwrap()));
            }
            if !show.query.follow || gone {
                show.ended = true;
                return Some(Sent::End(None));
            }
            tokio::select! {
                _ = show.grown.changed() => {}
                _ = show.cut.changed() => {}
            }
        }
    }
}

struct Show {
    cut: watch::Receiver<(u32, bool)>,
    grown: watch::Receiver<()>,
    place: usize,
    query: ContainerLogQuery,
    ended: bool,
}

pub(super) fn engine_id() -> EngineId {
    EngineId::parse("c1").unwrap()
}

/// A seat at the container's hub.
pub(super) async fn sit(hubs: &Arc<Hubs>, played: &Arc<Played>, format: Format) -> Seat {
    let mut seat = hubs.join(ContainerId(1), &engine_id(), &played.opener(), format).unwrap();
    seat.opened().await.unwrap();
    seat
}

/// Somebody who follows, and reads what was before as well.
pub(super) async fn follow(hubs: &Arc<Hubs>, played: &Arc<Played>) -> Reader {
    let seat = sit(hubs, played, Format::Plain).await;
    let query = ContainerLogQuery { engine_id: engine_id(), follow: false, after: None, since: None, tail: None };
    let mut feed = Feed::new(played.opener(), query);
    feed.patient(STAMINA);
    let archive = Archive { open: played.opener(), engine_id: engine_id(), places: Arc::new(Semaphore::new(1)) };
    Reader::new(View::new(Format::Plain, None, None), archive, Some(Past { feed, place: None }), Some(seat))
}

/// Somebody who follows from now on.
pub(super) async fn follow_from_now(hubs: &Arc<Hubs>, played: &Arc<Played>) -> Reader {
    let mut reader = follow(hubs, played).await;
    reader.past = None;
    reader
}

/// Checks that what a reader is shown is all that there is, in order, but for what is said to be missing.
#[derive(Debug, Default)]
pub(super) struct Seen {
    text: String,
    /// How many lines were shown or are known to be missing.
    pub(super) next: u64,
    /// How many of these are missing.
    pub(super) dropped: u64,
    pub(super) end: Option<String>,
}

impl Seen {
    pub(super) fn take(&mut self, text: &[u8]) {
        self.text.push_str(std::str::from_utf8(text).unwrap());
        while let Some(end) = self.text.find('\n') {
            let line: String = self.text.drain(..=end).collect();
            if let Some(missing) = line.strip_prefix("[starlink] ") {
                let count: u64 = missing.split(' ').next().unwrap().parse().unwrap();
                self.next += count;
                self.dropped += count;
            } else {
                let number: u64 = line.trim().strip_prefix("line ").unwrap().parse().unwrap();
                assert_eq!(number, self.next, "after {} dropped", self.dropped);
                self.next += 1;
            }
        }
    }

    /// Reads so many steps, or until nothing comes.
    pub(super) async fn read(&mut self, reader: &mut Reader, steps: usize) {
        for _ in 0..steps {
            match tokio::time::timeout(Duration::from_millis(5), reader.next()).await {
                Ok(Step::Text(text)) => self.take(&text),
                Ok(Step::End(reason)) => {
                    self.end = Some(reason.unwrap_or_default());
                    return;
                }
                Err(_elapsed) => return,
            }
        }
    }

    /// Reads until so many lines are accounted for.
    pub(super) async fn read_to(&mut self, reader: &mut Reader, count: u64) {
        let reading = async {
            while self.next < count {
                match reader.next().await {
                    Step::Text(text) => self.take(&text),
                    Step::End(reason) => panic!("{reason:?} after {} of {count}", self.next),
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(100), reading).await;
        waited.unwrap_or_else(|_elapsed| panic!("nothing comes after {} of {count}", self.next));
    }
}
