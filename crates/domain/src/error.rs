//! The one error of the domain: few kinds, reused by every room.
//!
//! What a user reads (`Display`) and what caused it (`source`) are two things: the cause is logged where the
//! error turns into a response, and never sent to a client.

use std::time::Duration;

/// What a fallible operation of the domain returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause of an [`Error::Unavailable`] or [`Error::Internal`]; logged, never shown.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One thing that is wrong with an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where: a JSON path such as `quotas.cpu`, or the name of a query parameter.
    pub field: String,
    /// What is wrong and what would be right, as a sentence without a full stop.
    pub reason: String,
}

impl FieldError {
    /// Says that `field` is wrong for `reason`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// Why the domain did not do what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// The kind and id of what is missing, such as `server 7`.
        what: String,
    },
    /// The input is malformed or out of range; nothing was changed.
    #[error("{}", invalid_sentence(errors))]
    Invalid {
        /// Every field that is wrong, in the order of the input.
        errors: Vec<FieldError>,
    },
    /// Nobody knows who is asking.
    #[error("{reason}")]
    Unauthenticated {
        /// What to do, such as `send a token`; the same for every wrong credential.
        reason: String,
    },
    /// The one who asks is known and may not.
    #[error("{reason}")]
    Forbidden {
        /// Which role or scope would be needed.
        reason: String,
    },
    /// The state of the thing does not allow it.
    #[error("{reason}")]
    Conflict {
        /// Stable and machine-readable, such as `name_taken`.
        code: &'static str,
        /// Why, with what to do next.
        reason: String,
    },
    /// The thing is not any more as the caller saw it.
    #[error("{what} has changed meanwhile: it is at revision {current} now; read it again and repeat the change")]
    Stale {
        /// The kind and id, such as `server 7`.
        what: String,
        /// The revision it has now.
        current: i64,
    },
    /// Too much was asked for in too short a time.
    #[error("{reason}")]
    Exhausted {
        /// What is limited.
        reason: String,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// There is no room for what was asked for.
    #[error("{reason}")]
    Capacity {
        /// With numbers: what was asked for and what is left.
        reason: String,
    },
    /// A part that is needed does not answer at the moment.
    #[error("{reason}")]
    Unavailable {
        /// Which part; shown to the user.
        reason: String,
        /// What it said; logged.
        #[source]
        source: Option<Cause>,
    },
    /// The product's own disk is full; nothing was changed.
    #[error(
        "the disk of the control plane is full: free some space on the server's data directory or database, then try again"
    )]
    StorageFull {
        /// What the storage said; logged.
        #[source]
        source: Option<Cause>,
    },
    /// A fault of the product itself. The user learns nothing but the request's id.
    #[error("an internal fault was logged under this request's id")]
    Internal {
        /// What went wrong; logged.
        #[source]
        source: Cause,
    },
}

impl Error {
    /// There is no `kind` with this `id`.
    pub fn not_found(kind: &str, id: impl std::fmt::Display) -> Self {
        Self::NotFound { what: format!("{kind} {id}") }
    }

    /// Others change this `kind` of thing so often that there is no computing it again.
    pub fn busy(kind: &str, id: impl std::fmt::Display) -> Self {
        Self::conflict("busy", format!("{kind} {id} is being changed by others all the time; try again"))
    }

    /// One field is wrong.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { errors: vec![FieldError::new(field, reason)] }
    }

    /// The state does not allow it.
    pub fn conflict(code: &'static str, reason: impl Into<String>) -> Self {
        Self::Conflict { code, reason: reason.into() }
    }

    /// A part is missing at the moment.
    pub fn unavailable(reason: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Unavailable { reason: reason.into(), source: Some(source.into()) }
    }

    /// A fault of our own.
    pub fn internal(source: impl Into<Cause>) -> Self {
        Self::Internal { source: source.into() }
    }
}

impl From<FieldError> for Error {
    fn from(error: FieldError) -> Self {
        Self::Invalid { errors: vec![error] }
    }
}

fn invalid_sentence(errors: &[FieldError]) -> String {
    match errors {
        [] => "the request is not valid".to_owned(),
        [one] if one.field.is_empty() => one.reason.clone(),
        [one] => format!("{}: {}", one.field, one.reason),
        [first, rest @ ..] => format!("{}: {} (and {} more)", first.field, first.reason, rest.len()),
    }
}

/// Gathers what is wrong with an input, so that one answer names all of it.
///
/// ```
/// use domain::error::Checks;
/// let mut checks = Checks::default();
/// let name: Option<String> = checks.take("name", Err::<String, _>("must not be empty".to_owned()));
/// assert!(name.is_none());
/// assert!(checks.finish().is_err());
/// ```
#[derive(Debug, Default)]
pub struct Checks {
    errors: Vec<FieldError>,
}

impl Checks {
    /// Keeps the value, or notes why `field` has none.
    pub fn take<T>(&mut self, field: &str, result: std::result::Result<T, String>) -> Option<T> {
        result.map_err(|reason| self.note(field, reason)).ok()
    }

    /// Notes that `field` is wrong.
    pub fn note(&mut self, field: &str, reason: impl Into<String>) {
        self.errors.push(FieldError::new(field, reason));
    }

    /// Notes what a nested value found wrong, below `field`.
    ///
    /// # Errors
    /// Whatever is no [`Error::Invalid`], as it is.
    pub fn nest<T>(&mut self, field: &str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Invalid { errors }) => {
                self.errors.extend(errors.into_iter().map(|e| FieldError::new(join(field, &e.field), e.reason)));
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// # Errors
    /// [`Error::Invalid`] with everything noted, if anything was.
    pub fn finish(self) -> Result<()> {
        if self.errors.is_empty() { Ok(()) } else { Err(Error::Invalid { errors: self.errors }) }
    }
}

fn join(outer: &str, inner: &str) -> String {
    if inner.is_empty() { outer.to_owned() } else { format!("{outer}.{inner}") }
}

/// An error and what caused it, in one sentence.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries repeat the cause in the message of the effect.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
