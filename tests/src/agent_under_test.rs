//! The program `starlink-agent`, under another name.

use std::process::ExitCode;

fn main() -> ExitCode {
    starlink_agent::cli::main()
}
