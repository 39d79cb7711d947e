use crate::fleet::Architecture;
use serde::{Deserialize, Serialize};

/// What programs of an image are compiled for, in the words of registries: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    os: String,
    architecture: String,
    variant: String,
}

impl Platform {
    /// A platform. `None` for what is none: parts that are empty or `unknown`, as attestations have them, and parts with
    /// letters that no platform has.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: &str) -> Option<Self> {
        let is_word = |part: &str| {
            (1..=32).contains(&part.len())
                && part != "unknown"
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let is_platform = is_word(os) && is_word(architecture) && (variant.is_empty() || is_word(variant));
        is_platform.then(|| Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_ascii_lowercase(),
            variant: variant.to_ascii_lowercase(),
        })
    }

    /// Which servers run it natively. None does where the system is not Linux, nor where it is 32-bit ARM, whatever a
    /// 64-bit machine may be able to; a later baseline than the first (`amd64/v3`) is not counted either, since nobody
    /// says which machines have it.
    #[must_use]
    pub fn architecture(&self) -> Option<Architecture> {
        if self.os != "linux" {
            return None;
        }
        match (self.architecture.as_str(), self.variant.as_str()) {
            ("amd64" | "x86_64", "" | "v1") => Some(Architecture::X86_64),
            // An entry without a variant is the only one that there is of 64-bit ARM.
            ("arm64" | "aarch64", "" | "v8" | "8") => Some(Architecture::Arm64),
            ("riscv64", "") => Some(Architecture::Riscv64),
            _ => None,
        }
    }

    /// The platform that engines call by this name.
    #[must_use]
    pub fn of(architecture: Architecture) -> Self {
        let word = match architecture {
            Architecture::X86_64 => "amd64",
            Architecture::Arm64 => "arm64",
            Architecture::Riscv64 => "riscv64",
        };
        Self { os: "linux".to_owned(), architecture: word.to_owned(), variant: String::new() }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { os, architecture, variant } = self;
        write!(f, "{os}/{architecture}")?;
        if variant.is_empty() { Ok(()) } else { write!(f, "/{variant}") }
    }
}

impl TryFrom<String> for Platform {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = text.splitn(3, '/');
        let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        Self::new(os, architecture, parts.next().unwrap_or_default())
            .ok_or_else(|| format!("{text:?} is no platform; one is written linux/amd64 or linux/arm/v7"))
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<Architecture>) {
        let platform = Platform::try_from(text.to_owned()).unwrap();
        assert_eq!((platform.to_string().as_str(), platform.architecture()), (text, expected));
    }

    #[test]
    fn only_64_bit_linux_runs_on_a_server() {
        check("linux/amd64", Some(Architecture::X86_64));
        check("linux/arm64", Some(Architecture::Arm64));
        check("linux/arm64/v8", Some(Architecture::Arm64));
        check("linux/riscv64", Some(Architecture::Riscv64));
        for none in ["linux/arm", "linux/arm/v5", "linux/arm/v7", "linux/386", "windows/amd64", "linux/amd64/v3"] {
            check(none, None);
        }
    }

    #[test]
    fn what_is_no_platform_is_not_read() {
        for text in ["", "/", "unknown/unknown", "linux", "linux/", "linux/unknown", "linux/a b", "linux/arm/v7/x"] {
            Platform::try_from(text.to_owned()).unwrap_err();
        }
    }

    #[test]
    fn each_architecture_is_its_platforms() {
        for architecture in Architecture::ALL {
            assert_eq!(Platform::of(architecture).architecture(), Some(architecture));
        }
    }
}
