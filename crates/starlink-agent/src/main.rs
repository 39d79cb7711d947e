//! The program `starlink-agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    starlink_agent::cli::main()
}
