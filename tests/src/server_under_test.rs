//! The program `starlink-server`, under another name.

use std::process::ExitCode;

fn main() -> ExitCode {
    starlink_server::main()
}
