use super::address::ServerAddress;
use reqwest::StatusCode;
use serde::Deserialize;
use std::{error::Error, io};

/// Why a call had no success.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It was not answered.
    #[error("the server {server} cannot be reached")]
    Unreachable {
        /// Where it should be.
        server: ServerAddress,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The other side does not prove that it is the server.
    #[error(
        "the server {server} cannot be trusted; if its certificate is signed by an authority of your own, give the \
         authority's certificate with --ca FILE"
    )]
    Untrusted {
        /// Where it should be.
        server: ServerAddress,
        /// What is wrong.
        source: rustls::Error,
    },
    /// StarLink's server refused it.
    #[error("{detail}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What is wrong, as a word.
        code: String,
        /// The same as a sentence.
        detail: String,
    },
    /// The answer says nothing about the call: a fault of the server, or something in between that answered instead.
    #[error("the server {server} answered {status}{hint}")]
    Failed {
        /// Where it should be.
        server: ServerAddress,
        /// The status.
        status: StatusCode,
        /// What else there is to say.
        hint: String,
    },
    /// The answer is too long, or no JSON of the kind that was expected.
    #[error("the answer of the server {server} cannot be understood")]
    Unreadable {
        /// Where it is.
        server: ServerAddress,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// What a refusal means for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing but that it is worth trying again.
    Again,
    /// The token is not good.
    TokenRefused,
    /// Another session has taken over, or the server has forgotten this one.
    SessionGone,
    /// An agent with the same token is alive in another place.
    AlreadyRunning,
    /// The two have no version of the protocol in common.
    Unsupported,
    /// The server does not want to hear of the operation any more.
    OperationClosed,
    /// It will be refused next time too.
    Final,
}

impl CallError {
    pub(super) fn unreachable(server: &ServerAddress, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source = source.into();
        match tls_fault(&*source) {
            Some(fault) => Self::Untrusted { server: server.clone(), source: fault },
            None => Self::Unreachable { server: server.clone(), source },
        }
    }

    /// What an answer that is no success says.
    pub(super) fn answered(server: &ServerAddress, status: StatusCode, location: Option<&str>, body: &[u8]) -> Self {
        match serde_json::from_slice::<Problem>(body) {
            // A proxy on the way may answer 401 or 404 as well, which says nothing about tokens and operations.
            Ok(problem) if status.is_client_error() && problem.kind.starts_with(PROBLEM) => {
                Self::Refused { status, code: problem.code, detail: problem.detail }
            }
            parsed => {
                let hint = match (location, parsed) {
                    (Some(location), _) => format!(
                        ", which leads to {location}; redirects are not followed: give the right address with --server"
                    ),
                    (None, Ok(problem)) => format!(": {}", problem.detail),
                    (None, Err(_)) => String::new(),
                };
                Self::Failed { server: server.clone(), status, hint }
            }
        }
    }

    /// The status that the server itself has refused the call with.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// What it means.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        let Self::Refused { status, code, .. } = self else { return Meaning::Again };
        match (status.as_u16(), code.as_str()) {
            (401, _) => Meaning::TokenRefused,
            (409 | 410, "session_gone") => Meaning::SessionGone,
            (409, "agent_already_running") => Meaning::AlreadyRunning,
            (409, "protocol_unsupported") => Meaning::Unsupported,
            (409, "operation_closed") | (404 | 410, _) => Meaning::OperationClosed,
            (409, "busy") | (408 | 429, _) => Meaning::Again,
            _ => Meaning::Final,
        }
    }
}

/// What the server's problem documents have in common.
const PROBLEM: &str = "urn:starlink:problem:";

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    code: String,
    detail: String,
}

/// The fault of TLS among the causes of an error.
fn tls_fault(error: &(dyn Error + 'static)) -> Option<rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<rustls::Error>() {
            return Some(fault.clone());
        }
        // An error of I/O hides what it was made from: its cause is the cause of that.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(fault) = inner.and_then(|inner| tls_fault(inner)) {
            return Some(fault);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::PlainHttp;
    use domain::error::with_causes;

    fn answered(status: u16, body: &str) -> CallError {
        let server = ServerAddress::parse("https://a.example", PlainHttp::Loopback).unwrap();
        CallError::answered(&server, StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
    }

    fn problem(status: u16, code: &str) -> Meaning {
        let body = format!(r#"{{"type": "urn:starlink:problem:{code}", "code": "{code}", "detail": "x", "new": 1}}"#);
        answered(status, &body).meaning()
    }

    #[test]
    fn refusals_mean_what_the_server_meant() {
        assert_eq!(problem(401, "unauthenticated"), Meaning::TokenRefused);
        assert_eq!(problem(409, "session_gone"), Meaning::SessionGone);
        assert_eq!(problem(410, "session_gone"), Meaning::SessionGone);
        assert_eq!(problem(409, "agent_already_running"), Meaning::AlreadyRunning);
        assert_eq!(problem(409, "protocol_unsupported"), Meaning::Unsupported);
        assert_eq!(problem(409, "operation_closed"), Meaning::OperationClosed);
        assert_eq!(problem(404, "not_found"), Meaning::OperationClosed);
        assert_eq!(problem(409, "busy"), Meaning::Again);
        assert_eq!(problem(429, "slow_down"), Meaning::Again);
        assert_eq!(problem(400, "invalid"), Meaning::Final);
    }

    #[test]
    fn what_something_in_between_answers_means_nothing() {
        for body in ["", "<html>not found</html>", r#"{"type": "about:blank", "code": "x", "detail": "y"}"#] {
            for status in [301, 401, 404, 409, 502] {
                assert_eq!(answered(status, body).meaning(), Meaning::Again, "{status} {body}");
            }
        }
        assert_eq!(problem(503, "unavailable"), Meaning::Again);
        assert_eq!(problem(507, "storage_full"), Meaning::Again);
    }

    #[test]
    fn a_fault_of_tls_is_found_among_the_causes() {
        let fault = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let nested = io::Error::other(io::Error::other(fault));
        let server = ServerAddress::parse("https://a.example", PlainHttp::Loopback).unwrap();
        let text = with_causes(&CallError::unreachable(&server, nested));
        assert!(text.contains("--ca FILE") && text.contains("UnknownIssuer"), "{text}");
        let text = with_causes(&CallError::unreachable(&server, io::Error::other("refused")));
        assert!(text.contains("cannot be reached: refused"), "{text}");
    }
}
