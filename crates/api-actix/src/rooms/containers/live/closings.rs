//! What the codes mean with which agents close streams of containers, in sentences that say what to do.

use crate::rooms::{
    fleet::{Cause, Sent},
    output::UNKNOWN_WORK,
};
use domain::ids::ServerId;
use futures_util::{Stream, StreamExt};

/// The engine refused something.
pub(super) const FAULT: u16 = 1011;
/// The container does not run.
pub(super) const NOT_RUNNING: u16 = 4409;
/// The agent is too old.
pub(super) const UNSUPPORTED: u16 = 4501;
/// The agent has as many streams as it can.
const BUSY: u16 = 4503;
/// The agent does not reach its container engine.
const ENGINE_AWAY: u16 = 4504;
/// What the reason begins with then.
const ENGINE_AWAY_WORD: &str = "engine_away";

/// A stream of a server's agent that ends with a reason for people.
pub(super) fn explained(server: ServerId, stream: impl Stream<Item = Sent>) -> impl Stream<Item = Sent> {
    stream.map(move |sent| match sent {
        Sent::End(Some(cause)) => Sent::End(Some(explain(server, &cause))),
        sent => sent,
    })
}

/// The same for people. They are short, because they have to fit into the end of a WebSocket.
pub(in crate::rooms::containers) fn explain(server: ServerId, cause: &Cause) -> Cause {
    let said = plain(&cause.reason);
    let reason = match cause.code {
        UNKNOWN_WORK => format!("the container engine of server {server} does not have this container any more"),
        NOT_RUNNING => "the container does not run; start it first".to_owned(),
        UNSUPPORTED => format!("the agent of server {server} is too old for this; renew it"),
        BUSY => format!("the agent of server {server} has no place for another stream; close one, or try again"),
        ENGINE_AWAY => {
            let how = said.strip_prefix(ENGINE_AWAY_WORD).unwrap_or(&said).trim_start_matches([':', ' ']);
            let colon = if how.is_empty() { "" } else { ": " };
            format!(
                "the container engine of server {server} does not answer; see that it runs, then try again{colon}{how}"
            )
        }
        _ => said,
    };
    Cause { code: cause.code, reason }
}

/// A text of somebody else's, without what a terminal or a log would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_machines_reaches_anybody() {
        let check = |code, said: &str, expected: &str| {
            let cause = explain(ServerId(3), &Cause { code, reason: said.to_owned() });
            assert_eq!((cause.code, cause.reason.as_str()), (code, expected));
        };
        check(BUSY, "busy", "the agent of server 3 has no place for another stream; close one, or try again");
        check(UNSUPPORTED, "unsupported", "the agent of server 3 is too old for this; renew it");
        check(NOT_RUNNING, "not_running", "the container does not run; start it first");
        let gone = "the container engine of server 3 does not have this container any more";
        check(UNKNOWN_WORK, "unknown_container", gone);
        let away = "the container engine of server 3 does not answer; see that it runs, then try again";
        check(ENGINE_AWAY, "engine_away", away);
        check(ENGINE_AWAY, "engine_away: no\u{1b}[2J socket", &format!("{away}: no[2J socket"));
        check(FAULT, "the driver keeps\r\n none\0", "the driver keeps none");
    }
}
