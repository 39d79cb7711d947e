//! A real Docker engine for tests, and one that is played.

pub(crate) mod fake;

pub(crate) use test_engine::{Engine, images};

use std::sync::OnceLock;

/// The engine that tests share: whatever they make carries an installation of its own.
///
/// It is removed when the tests have ended, by its shell.
pub(crate) fn shared() -> Option<&'static Engine> {
    static SHARED: OnceLock<Result<Engine, String>> = OnceLock::new();
    test_engine::or_not_run(SHARED.get_or_init(|| start(&[])).as_ref().map_err(Clone::clone))
}

/// An engine that a test has for itself.
pub(crate) fn own(arguments: &[&str]) -> Option<Engine> {
    test_engine::or_not_run(start(arguments))
}

fn start(arguments: &[&str]) -> Result<Engine, String> {
    let engine = Engine::start(arguments, &images::ALL);
    engine.map_err(|why| format!("no container engine could be started: {why}"))
}
