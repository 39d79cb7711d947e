//! Which architectures the kernel has emulated, by its `binfmt_misc`.

use domain::fleet::Architecture;
use std::{fs, path::Path};

/// What ELF calls the architectures.
pub(super) const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
pub(super) const EM_RISCV: u16 = 243;
/// How many bytes of a handler's magic reach to the end of a program's architecture.
const MAGIC: usize = 20;

/// The architectures but `native` that are emulated under `root`, in the order of [`Architecture::ALL`].
pub(super) fn emulated(root: &Path, native: Option<Architecture>) -> Vec<Architecture> {
    let folder = root.join("proc/sys/fs/binfmt_misc");
    if fs::read_to_string(folder.join("status")).is_ok_and(|status| status.trim() != "enabled") {
        return Vec::new();
    }
    let is_there = |interpreter: &str| root.join(interpreter.trim_start_matches('/')).exists();
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let found: Vec<_> = texts.filter_map(|text| handled(&text, is_there)).collect();
    Architecture::ALL.into_iter().filter(|one| found.contains(one) && Some(*one) != native).collect()
}

/// What a handler that works has run. Its magic tells, because its name is free: `qemu-aarch64`, `rosetta`, `FEX-x86_64`.
fn handled(text: &str, is_there: impl Fn(&str) -> bool) -> Option<Architecture> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let interpreter = field("interpreter ")?;
    // With the flag F the kernel has it open already, wherever it was.
    let opened = field("flags:").is_some_and(|flags| flags.contains('F'));
    let works = text.lines().next() == Some("enabled") && (opened || is_there(interpreter));
    if !works || field("offset ") != Some("0") {
        return None;
    }
    let magic = bytes(field("magic ")?)?;
    let [0x7f, b'E', b'L', b'F', 2, 1, .., low, high] = magic else { return None };
    match u16::from_le_bytes([low, high]) {
        EM_X86_64 => Some(Architecture::X86_64),
        EM_AARCH64 => Some(Architecture::Arm64),
        EM_RISCV => Some(Architecture::Riscv64),
        _ => None,
    }
}

fn bytes(hexadecimal: &str) -> Option<[u8; MAGIC]> {
    let mut bytes = [0; MAGIC];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hexadecimal.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian's `qemu-user-static` registers it.
    const AARCH64: &str = "enabled\n\
        interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\n\
        flags: POCF\n\
        offset 0\n\
        magic 7f454c460201010000000000000000000200b700\n\
        mask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn check(text: &str, is_there: bool, expected: Option<Architecture>) {
        assert_eq!(handled(text, |_| is_there), expected, "{text}");
    }

    #[test]
    fn handlers_count_if_they_work() {
        check(AARCH64, false, Some(Architecture::Arm64));
        let closed = AARCH64.replace("POCF", "POC");
        check(&closed, true, Some(Architecture::Arm64));
        check(&closed, false, None);
        check(&AARCH64.replace("enabled", "disabled"), true, None);
        check("enabled\n", true, None);
        check("enabled\ninterpreter /usr/bin/python3\nflags: \nextension .py\n", true, None);
        check("enabled\ninterpreter /usr/bin/cli\nflags: OC\noffset 0\nmagic 4d5a\n", true, None);
    }

    #[test]
    fn the_magic_names_the_architecture() {
        let with = |magic: &str| AARCH64.replace("7f454c460201010000000000000000000200b700", magic);
        check(&with("7f454c460201010000000000000000000200f300"), true, Some(Architecture::Riscv64));
        check(&with("7f454c4602010100000000000000000002003e00"), true, Some(Architecture::X86_64));
        // 32-bit ARM, and 64-bit POWER, which is big-endian.
        check(&with("7f454c4601010100000000000000000002002800"), true, None);
        check(&with("7f454c4602020100000000000000000000020015"), true, None);
        check(&with("7f454c46zz"), true, None);
    }
}
