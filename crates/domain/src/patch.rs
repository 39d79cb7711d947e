//! A member of a JSON merge patch (RFC 7396): left out, cleared with `null`, or set.

/// What a merge patch says about one member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Not mentioned: stays as it is.
    #[default]
    Keep,
    /// `null`: has no value from now on.
    Clear,
    /// A value: has this value from now on.
    Set(T),
}

impl<T> Patch<T> {
    /// The value after the patch.
    pub fn apply(self, current: Option<T>) -> Option<T> {
        match self {
            Self::Keep => current,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    /// The same patch with its value converted.
    ///
    /// # Errors
    /// What `convert` says.
    pub fn try_map<U, E>(self, convert: impl FnOnce(T) -> Result<U, E>) -> Result<Patch<U>, E> {
        Ok(match self {
            Self::Keep => Patch::Keep,
            Self::Clear => Patch::Clear,
            Self::Set(value) => Patch::Set(convert(value)?),
        })
    }

    /// The value of a member that cannot be cleared, or `None` to keep it.
    ///
    /// # Errors
    /// A sentence, if the patch clears it.
    pub fn required(self) -> Result<Option<T>, String> {
        match self {
            Self::Keep => Ok(None),
            Self::Clear => Err("must not be null: it always has a value".to_owned()),
            Self::Set(value) => Ok(Some(value)),
        }
    }
}
