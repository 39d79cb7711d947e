//! Small sets as bits, because placement compares them for every server.

use super::spec::ArchitectureNeed;
use crate::fleet::{Architecture, Driver};
use serde::{Deserialize, Serialize};

/// A set of architectures; serialised, a list of words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Architecture>", into = "Vec<Architecture>")]
pub struct ArchitectureSet(u8);

impl ArchitectureSet {
    /// Whether `architecture` is in it.
    #[must_use]
    pub fn contains(self, architecture: Architecture) -> bool {
        self.meets(Self::from(architecture))
    }

    /// Whether something is in both.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What is in either.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in it and not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in it, in the order of [`Architecture::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Architecture> {
        Architecture::ALL.into_iter().filter(move |architecture| self.contains(*architecture))
    }
}

impl From<Architecture> for ArchitectureSet {
    fn from(architecture: Architecture) -> Self {
        match architecture {
            Architecture::X86_64 => Self(1),
            Architecture::Arm64 => Self(2),
            Architecture::Riscv64 => Self(4),
        }
    }
}

impl From<ArchitectureNeed> for ArchitectureSet {
    fn from(need: ArchitectureNeed) -> Self {
        match need {
            ArchitectureNeed::Universal => Architecture::ALL.into_iter().collect(),
            ArchitectureNeed::Only(architecture) => architecture.into(),
        }
    }
}

impl FromIterator<Architecture> for ArchitectureSet {
    fn from_iter<I: IntoIterator<Item = Architecture>>(all: I) -> Self {
        all.into_iter().fold(Self::default(), |set, architecture| set.with(architecture.into()))
    }
}

impl From<Vec<Architecture>> for ArchitectureSet {
    fn from(all: Vec<Architecture>) -> Self {
        all.into_iter().collect()
    }
}

impl From<ArchitectureSet> for Vec<Architecture> {
    fn from(set: ArchitectureSet) -> Self {
        set.iter().collect()
    }
}

impl std::fmt::Display for ArchitectureSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<&str> = self.iter().map(Architecture::as_str).collect();
        f.write_str(&words.join(" or "))
    }
}

/// A set of drivers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct DriverSet(u8);

impl DriverSet {
    /// Whether everything in `others` is in it; always, if that is nothing.
    #[must_use]
    pub fn has_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// What is in either.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl From<Driver> for DriverSet {
    fn from(driver: Driver) -> Self {
        match driver {
            Driver::Docker => Self(1),
            Driver::Exec => Self(2),
        }
    }
}

impl FromIterator<Driver> for DriverSet {
    fn from_iter<I: IntoIterator<Item = Driver>>(all: I) -> Self {
        all.into_iter().fold(Self::default(), |set, driver| set.with(driver.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let set: ArchitectureSet = [Architecture::Arm64, Architecture::Riscv64].into_iter().collect();
        assert!(set.contains(Architecture::Arm64) && !set.contains(Architecture::X86_64));
        assert_eq!(set.to_string(), "arm64 or riscv64");
        assert_eq!(set.common(Architecture::Arm64.into()), Architecture::Arm64.into());
        assert_eq!(set.without(Architecture::Arm64.into()), Architecture::Riscv64.into());
        assert!(ArchitectureSet::from(ArchitectureNeed::Universal).contains(Architecture::X86_64));
    }

    #[test]
    fn a_set_is_stored_as_words() {
        for (set, stored) in
            [(vec![], "[]"), (vec![Architecture::Arm64, Architecture::X86_64], r#"["x86_64","arm64"]"#)]
        {
            let set = ArchitectureSet::from(set);
            assert_eq!(serde_json::to_string(&set).unwrap(), stored);
            assert_eq!(serde_json::from_str::<ArchitectureSet>(stored).unwrap(), set);
        }
        assert!(serde_json::from_str::<ArchitectureSet>(r#"["z80"]"#).is_err());
    }

    #[test]
    fn nothing_is_always_there() {
        let docker = DriverSet::from(Driver::Docker);
        assert!(DriverSet::default().has_all(DriverSet::default()));
        assert!(docker.has_all(docker) && !docker.has_all(Driver::Exec.into()));
        assert!([Driver::Exec, Driver::Docker].into_iter().collect::<DriverSet>().has_all(docker));
    }
}
