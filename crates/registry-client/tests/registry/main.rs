//! What registries are asked and how they are understood: Debian's own registry, and a stand-in for what that one does
//! not do, or must not.

#![expect(clippy::unwrap_used, reason = "a test that panics has done its work, in its helpers too")]

mod answers;
mod limits;
mod real;
mod stand_in;
mod tls;
mod tokens;

use domain::containers::{ImageName, ImageTruth, Login, Logins, Registries, RegistryFailure};
use registry_client::{OciRegistries, RegistryOptions};
use std::{future::Future, time::Duration};

/// Nothing that a test waits for takes as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that believes everything for longer than a test takes, and waits for longer than a busy machine needs.
fn options() -> RegistryOptions {
    RegistryOptions {
        patience: PATIENCE,
        connect: PATIENCE,
        tag_belief: Duration::from_hours(1),
        silence_belief: Duration::from_hours(1),
        ..RegistryOptions::default()
    }
}

/// One that believes nothing: each look-up asks.
fn doubting() -> RegistryOptions {
    RegistryOptions { tag_belief: Duration::ZERO, silence_belief: Duration::ZERO, ..options() }
}

fn client(options: RegistryOptions) -> OciRegistries {
    OciRegistries::new(options).unwrap()
}

fn login(registry: &str) -> Logins {
    Logins::from([(registry.to_owned(), Login { username: "ann".to_owned(), password: PASSWORD.to_owned() })])
}

const PASSWORD: &str = "pass:word-of-ann";

async fn look_up(client: &OciRegistries, name: &str) -> Result<ImageTruth, RegistryFailure> {
    client.look_up(&ImageName::parse(name).unwrap()).await
}

fn platforms(truth: &ImageTruth) -> Vec<String> {
    truth.platforms.iter().map(ToString::to_string).collect()
}

fn silent(outcome: Result<ImageTruth, RegistryFailure>) -> String {
    match outcome {
        Err(RegistryFailure::Silent(sentence)) => sentence,
        other => panic!("it should have been silent: {other:?}"),
    }
}

fn missing(outcome: Result<ImageTruth, RegistryFailure>) -> String {
    match outcome {
        Err(RegistryFailure::Missing(sentence)) => sentence,
        other => panic!("it should have been missing: {other:?}"),
    }
}

fn no_image(outcome: Result<ImageTruth, RegistryFailure>) -> String {
    match outcome {
        Err(RegistryFailure::NoImage(sentence)) => sentence,
        other => panic!("it should have been no image: {other:?}"),
    }
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(what, waiting).await;
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("it takes too long: {what}"))
}
