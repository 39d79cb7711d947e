use domain::digest::sha256_hex;

/// What something is known by in a registry: `sha256:` and 64 hexadecimal digits. OCI knows other algorithms too, which
/// no registry uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest(String);

impl Digest {
    /// Reads one; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 64 && digits.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// The one that these bytes have.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", sha256_hex(bytes)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sha256_in_lower_case_is_a_digest() {
        let good = Digest::of(b"");
        assert_eq!(good.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest::parse(good.as_str()), Some(good.clone()));
        let upper = good.as_str().to_ascii_uppercase();
        let long = format!("{}0", good.as_str());
        let path = format!("sha256:{}", "/..".repeat(22).get(..64).unwrap());
        for text in ["", "sha256:", "sha256:12", "sha512:12", &upper, &long, &path, &upper.to_ascii_lowercase()[7..]] {
            assert_eq!(Digest::parse(text), None, "{text}");
        }
    }
}
