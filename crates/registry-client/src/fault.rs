use crate::address::Place;
use domain::{containers::RegistryFailure, error::with_causes};
use reqwest::StatusCode;

/// The longest cause that is passed on, in characters: some quote what a registry has sent.
const LONGEST_CAUSE: usize = 500;

/// Why a look-up came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The registry has no such image for us.
    Missing,
    /// The registry does not answer, whatever it is asked: the cause.
    Away(String),
    /// What it answered to this cannot be used: the cause.
    Odd(String),
    /// It is no image: the sentence.
    NoImage(String),
}

impl Fault {
    /// A request that failed on its way.
    pub(crate) fn unreachable(error: reqwest::Error) -> Self {
        // An address may carry what is secret: redirects to where blobs lie do.
        let error = error.without_url();
        let cause = shortened(with_causes(&error));
        if error.is_redirect() {
            return Self::Odd(cause);
        }
        let hint = if cause.contains("invalid peer certificate") {
            "; if its certificate is signed by an authority of your own, that authority has to be made known here"
        } else {
            ""
        };
        Self::Away(format!("{cause}{hint}"))
    }

    /// An answer that is no success, of the registry or of where it hands out tokens.
    pub(crate) fn answered(status: StatusCode) -> Self {
        match status.as_u16() {
            // Names that a registry finds malformed are answered 400.
            400 | 401 | 403 | 404 => Self::Missing,
            429 => Self::Away("it takes no more requests for now (429)".to_owned()),
            code if status.is_server_error() => Self::Away(format!("it answered {code}")),
            code => Self::Odd(format!("it answered {code}")),
        }
    }

    /// The same for those who asked, who know what was asked for.
    pub(crate) fn told(self, place: &Place, is_signed_in: bool) -> RegistryFailure {
        match self {
            Self::Missing if is_signed_in => RegistryFailure::Missing(format!(
                "there is no image {place} that can be read with the login that is configured for this registry; check \
                 the name and that login, or push the image"
            )),
            Self::Missing => RegistryFailure::Missing(format!(
                "there is no image {place} that can be read without signing in; check the name, push the image, or \
                 configure a login for {}",
                place.registry()
            )),
            Self::Away(cause) => {
                RegistryFailure::Silent(format!("the registry {} does not answer: {cause}", place.registry()))
            }
            Self::Odd(cause) => RegistryFailure::Silent(format!(
                "the registry {} does not answer as a registry does: {cause}",
                place.registry()
            )),
            Self::NoImage(sentence) => RegistryFailure::NoImage(shortened(sentence)),
        }
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(LONGEST_CAUSE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
