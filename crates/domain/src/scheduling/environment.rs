use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What stands for a value that is not shown.
const HIDDEN: &str = "(hidden)";
/// The most variables of one task.
const MAX_VARIABLES: usize = 256;
/// The longest value, in bytes.
const MAX_VALUE: usize = 32 * 1024;

/// Environment variables. Their values are often secrets: `Debug` hides them, and no error names one.
///
/// Serialised as it is, it has its values, because the store needs them; see [`Environment::redacted`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Checks variables: a name is not empty and has neither `=` nor NUL, a value has no NUL.
    ///
    /// # Errors
    /// A sentence that names the first variable that is wrong, but not its value.
    pub fn parse(variables: BTreeMap<String, String>) -> Result<Self, String> {
        if variables.len() > MAX_VARIABLES {
            return Err(format!("must have at most {MAX_VARIABLES} variables"));
        }
        for (name, value) in &variables {
            Self::check_name(name)?;
            if value.len() > MAX_VALUE || value.contains('\0') {
                return Err(format!("value of {name:?} must have at most {MAX_VALUE} bytes and no NUL"));
            }
        }
        Ok(Self(variables))
    }

    /// # Errors
    /// A sentence that tells a wrong name only as far as it is certain to be one: whoever writes `NAME=value` where a
    /// name belongs would find the value in the answer, and in the log.
    pub fn check_name(name: &str) -> Result<(), String> {
        if let Some((before, _)) = name.split_once('=') {
            return Err(format!(
                "has a name that begins with {:?}: names and values are given apart",
                format!("{before}=")
            ));
        }
        if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
            return Err(format!(
                "has the name {name:?}: a name has 1 to 255 characters, none of them '=' or a control character"
            ));
        }
        Ok(())
    }

    /// The variables with their values, sorted by name: for whoever runs the work.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same variables, each with `(hidden)` for its value.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self(self.0.keys().map(|name| (name.clone(), HIDDEN.to_owned())).collect())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, HIDDEN))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn values_are_not_shown() {
        let env = Environment::parse(variables(&[("DB_PASSWORD", "hunter-55")])).unwrap();
        assert_eq!(format!("{env:?}"), r#"{"DB_PASSWORD": "(hidden)"}"#);
        assert_eq!(serde_json::to_string(&env.redacted()).unwrap(), r#"{"DB_PASSWORD":"(hidden)"}"#);
        assert_eq!(env.iter().collect::<Vec<_>>(), [("DB_PASSWORD", "hunter-55")]);
    }

    #[test]
    fn what_no_program_could_be_given_is_refused_without_its_value() {
        for (name, value) in
            [("", "s3cret"), ("A=B", "s3cret"), ("A\0", "s3cret"), ("A\n", "s3cret"), ("A", "s3cret\0")]
        {
            let refusal = Environment::parse(variables(&[(name, value)])).unwrap_err();
            assert!(!refusal.contains("s3cret"), "{refusal}");
        }
        let refusal = Environment::parse(variables(&[("A=s3cret", "")])).unwrap_err();
        assert!(refusal.contains("\"A=\"") && !refusal.contains("s3cret"), "{refusal}");
        let long = "x".repeat(MAX_VALUE + 1);
        assert!(Environment::parse(variables(&[("A", &long)])).is_err());
        let many = (0..=MAX_VARIABLES).map(|n| (n.to_string(), String::new())).collect();
        assert!(Environment::parse(many).is_err());
    }
}
