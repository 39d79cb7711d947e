//! Operations that run no task: they are done at once, and are over.

use super::{Operation, Outcome, Wish, asked, passed};
use crate::{journal::Entry, runner::ends, work::Failure};
use domain::{
    clock::Timestamp,
    containers::EngineId,
    digest::sha256_hex,
    fleet::protocol::{self, End, Ending, Order, StartedReport},
    scheduling::reason,
};
use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};
use tokio::sync::{oneshot, watch};

/// What is told where nobody knows whether it was done.
pub(super) const CUT_SHORT: &str =
    "the agent was ended while it was doing it, and it is not done again; look at what has become of it";
/// How long the end waits until what has become of the container is told: longer than its engine may take to say it.
const TO_LOOK: Duration = Duration::from_secs(12);

impl Operation {
    /// Does it, once it is written down that it is about to be done.
    pub(super) async fn undertake(&self, order: &Order) -> Outcome {
        tokio::select! {
            biased;
            _ = asked(self.orders.clone()) => return Outcome::Ended(ends::cancelled(self.shared.now())),
            () = passed(self.orders.clone()) => return Outcome::Ended(ends::expired(self.shared.now())),
            () = std::future::ready(()) => {}
        }
        let at = self.shared.now();
        let deed = self.deed.clone().unwrap_or_default();
        if let Err(error) = self.shared.journal.write(Entry::Undertaken { operation: self.id, deed, at }).await {
            tracing::error!(%error, "operation {} is not begun: the agent's state directory cannot be written", self.id);
            return Outcome::Ended(ends::unwritten(&error, self.shared.now()));
        }
        let (said, sayings) = watch::channel(String::new());
        let progress = move |message: String| _ = said.send_replace(message);
        let done = tokio::select! {
            biased;
            done = self.shared.drivers.bring_about(order, &progress) => done,
            wish = self.called_off(order) => return match wish {
                Wish::Abandon => Outcome::GivenUp,
                Wish::Run | Wish::Cancel => {
                    let detail = "it was cancelled while it was done; what was done by then stays";
                    Outcome::Ended(End { started_at: Some(at), ..End::without_code(Ending::Cancelled, detail) })
                }
            },
            () = self.late_stop() => return Outcome::Left,
            never = self.say_started(at) => match never {},
            never = self.tell_progress(sayings) => match never {},
        };
        if let Order::Container(order) = order {
            self.look(order.engine_id.clone()).await;
        }
        Outcome::Ended(End { started_at: Some(at), finished_at: Some(self.shared.now()), ..told(done) })
    }

    /// Returns once its end is wanted, and can be brought about: only a pull ends when nobody waits for it. Whatever else
    /// the engine was told it does, whether anybody hears of it or not.
    async fn called_off(&self, order: &Order) -> Wish {
        match order {
            Order::ImagePull(_) => asked(self.orders.clone()).await,
            _ => pending().await,
        }
    }

    /// Tells the server once that it is being done.
    async fn say_started(&self, started_at: Timestamp) -> Infallible {
        let report = |session: Arc<str>| {
            let report = StartedReport { session: session.to_string(), started_at };
            async move { self.shared.link.client().started(self.id, &report).await }
        };
        // That the server has closed it says nothing against finishing what the engine was told.
        self.shared.link.insist(report).await;
        pending().await
    }

    /// Has the container's new state told before the end is, so that whoever waits for the end sees it.
    async fn look(&self, id: EngineId) {
        if self.shared.drivers.containers().is_none() {
            return;
        }
        let (sender, seen) = oneshot::channel();
        let looked = async {
            if self.shared.looks.send((id, sender)).await.is_ok() {
                // Where the reporter begins anew, its next report tells it.
                seen.await.ok();
            }
        };
        tokio::time::timeout(TO_LOOK, looked).await.ok();
    }
}

/// What tells an order that runs no task from others; `None` for one that does, or that is not known.
pub(in crate::runner) fn deed_of(order: &Order) -> Option<String> {
    match order {
        Order::RunTask(_) | Order::Unknown => None,
        // Nothing in an order can fail to be written as JSON.
        order => Some(sha256_hex(&serde_json::to_vec(order).unwrap_or_default())),
    }
}

fn told(done: Result<Option<protocol::Outcome>, Failure>) -> End {
    let end = |ending, reason: Option<&str>, detail| End {
        reason: reason.map(str::to_owned),
        detail,
        ..End::without_code(ending, "")
    };
    match done {
        Ok(outcome) => End { outcome: outcome.map(Box::new), ..end(Ending::Completed, None, None) },
        // Nobody knows whether the engine did it.
        Err(failure) if failure.reason == reason::ENGINE_GONE => {
            end(Ending::Unknown, Some(failure.reason), Some(failure.detail))
        }
        Err(failure) => end(Ending::Failed, Some(failure.reason), Some(failure.detail)),
    }
}
