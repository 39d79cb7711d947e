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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_keeps_null_clears_and_a_value_sets() {
        let check = |patch: Patch<i64>, of_none: Option<i64>, of_one: Option<i64>| {
            assert_eq!(patch.clone().apply(None), of_none, "{patch:?}");
            assert_eq!(patch.clone().apply(Some(1)), of_one, "{patch:?}");
        };
        check(Patch::default(), None, Some(1));
        check(Patch::Clear, None, None);
        check(Patch::Set(2), Some(2), Some(2));
    }

    #[test]
    fn only_a_value_is_converted() {
        let refuse = |_: i64| Err::<i64, _>("no");
        assert_eq!(Patch::Keep.try_map(refuse), Ok(Patch::Keep));
        assert_eq!(Patch::Clear.try_map(refuse), Ok(Patch::Clear));
        assert_eq!(Patch::Set(1).try_map(refuse), Err("no"));
        assert_eq!(Patch::Set(1).try_map(|n: i64| Ok::<_, ()>(n.to_string())), Ok(Patch::Set("1".to_owned())));
    }

    #[test]
    fn a_member_that_is_always_there_cannot_be_cleared() {
        assert_eq!(Patch::<i64>::Keep.required(), Ok(None));
        assert_eq!(Patch::Set(1).required(), Ok(Some(1)));
        assert!(Patch::<i64>::Clear.required().unwrap_err().contains("must not be null"));
    }
}
