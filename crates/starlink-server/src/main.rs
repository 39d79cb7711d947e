//! The program `starlink-server`.

use std::process::ExitCode;

fn main() -> ExitCode {
    starlink_server::main()
}
