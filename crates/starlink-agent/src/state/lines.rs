//! Lines of files that are added to: eight hexadecimal digits of a digest, a space, JSON, and a line feed. A line that a
//! crash has torn is told by its digest.

use domain::digest::sha256_hex;
use serde::Serialize;
use std::io;

/// The digits of a digest that are kept: enough to tell a torn line.
const DIGITS: usize = 8;

/// The line that says this.
pub(crate) fn sealed(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    let mut line = digest(&json).into_bytes();
    line.push(b' ');
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

/// The JSON of a line that is whole.
pub(crate) fn opened(line: &[u8]) -> Option<&[u8]> {
    let (sum, json) = line.strip_suffix(b"\n")?.split_at_checked(DIGITS)?;
    let json = json.strip_prefix(b" ")?;
    (digest(json).as_bytes() == sum).then_some(json)
}

fn digest(json: &[u8]) -> String {
    let mut digest = sha256_hex(json);
    digest.truncate(DIGITS);
    digest
}
