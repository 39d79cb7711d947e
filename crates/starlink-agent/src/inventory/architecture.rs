//! The machine's architecture, in the words of whoever runs programs on it.

use super::emulation::{EM_RISCV, EM_X86_64};
use domain::fleet::Architecture;
use std::{fs::File, io::Read, path::Path};

/// How much of a program says what it was compiled for.
const HEADER: usize = 20;

/// What an engine calls the machine: its `info` repeats the kernel, its `version` says what it was compiled for, and
/// containers get that. The two may differ: `aarch64` and `arm` on a 64-bit kernel below a 32-bit system. Then the
/// report has what no 64-bit program is placed on.
pub(super) fn of_engine(info: Option<&str>, version: Option<&str>) -> Option<String> {
    let (Some(info), Some(version)) = (info, version) else {
        return info.or(version).map(kernel_word);
    };
    Some(match (Architecture::parse(info), Architecture::parse(version)) {
        (Ok(one), Ok(other)) if one != other => format!("{info} with an engine for {version}"),
        (Ok(_), Err(_)) => kernel_word(version),
        _ => kernel_word(info),
    })
}

/// What the kernel calls the machine, unless what runs on it is of the kernel's 32-bit kin.
pub(super) fn without_engine(root: &Path, machine: &str) -> String {
    let narrow = ["proc/1/exe", "bin/sh", "usr/bin/env"].iter().find_map(|path| userland(&root.join(path)));
    match narrow {
        Some(Width::Narrow(word)) if Architecture::parse(machine).is_ok() => word.to_owned(),
        _ => machine.to_owned(),
    }
}

/// What kernels call the 32-bit architectures that Go has other names for.
fn kernel_word(word: &str) -> String {
    match word {
        "arm" => "armv7l",
        "386" => "i686",
        other => other,
    }
    .to_owned()
}

/// Whether a program is compiled for 64 bits.
#[derive(Debug, PartialEq, Eq)]
enum Width {
    Wide,
    Narrow(&'static str),
}

fn userland(program: &Path) -> Option<Width> {
    let mut header = [0; HEADER];
    File::open(program).ok()?.read_exact(&mut header).ok()?;
    width(header)
}

fn width(header: [u8; HEADER]) -> Option<Width> {
    let [0x7f, b'E', b'L', b'F', class, order, .., low, high] = header else { return None };
    if class == 2 {
        return Some(Width::Wide);
    }
    let machine = if order == 2 { [high, low] } else { [low, high] };
    Some(Width::Narrow(match u16::from_le_bytes(machine) {
        3 => "i686",
        40 => "armv7l",
        EM_X86_64 => "x32",
        EM_RISCV => "riscv32",
        _ => "a 32-bit system",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_says_what_containers_can_run() {
        let cases = [
            (Some("x86_64"), Some("amd64"), Some("x86_64")),
            (Some("aarch64"), Some("arm64"), Some("aarch64")),
            (Some("riscv64"), Some("riscv64"), Some("riscv64")),
            // A 32-bit system on a 64-bit kernel, whichever of the two admits it.
            (Some("armv7l"), Some("arm"), Some("armv7l")),
            (Some("aarch64"), Some("arm"), Some("armv7l")),
            (Some("armv7l"), Some("arm64"), Some("armv7l")),
            (Some("x86_64"), Some("386"), Some("i686")),
            (Some("s390x"), Some("s390x"), Some("s390x")),
            (Some("x86_64"), None, Some("x86_64")),
            (None, Some("arm64"), Some("arm64")),
            (None, Some("arm"), Some("armv7l")),
            (None, None, None),
        ];
        for (info, version, expected) in cases {
            assert_eq!(of_engine(info, version).as_deref(), expected, "{info:?} {version:?}");
        }
        let disputed = of_engine(Some("x86_64"), Some("arm64")).unwrap();
        assert!(Architecture::parse(&disputed).is_err(), "{disputed}");
    }

    fn header(class: u8, order: u8, machine: [u8; 2]) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
        header[18..].copy_from_slice(&machine);
        header
    }

    #[test]
    fn programs_say_what_they_are_compiled_for() {
        assert_eq!(width(header(2, 1, [62, 0])), Some(Width::Wide));
        assert_eq!(width(header(2, 1, [183, 0])), Some(Width::Wide));
        assert_eq!(width(header(1, 1, [40, 0])), Some(Width::Narrow("armv7l")));
        assert_eq!(width(header(1, 1, [3, 0])), Some(Width::Narrow("i686")));
        assert_eq!(width(header(1, 1, [62, 0])), Some(Width::Narrow("x32")));
        assert_eq!(width(header(1, 2, [0, 8])), Some(Width::Narrow("a 32-bit system")));
        assert_eq!(width(*b"#!/bin/sh\nexec true\n"), None);
    }
}
