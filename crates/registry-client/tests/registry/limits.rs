//! What a look-up may cost.

use crate::{
    client, doubting, look_up, options, silent,
    stand_in::{Gate, Reply, Request, StandIn, image, the_image},
    until, within,
};
use futures_util::{FutureExt, future::join_all};
use registry_client::RegistryOptions;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

#[tokio::test]
async fn a_body_that_never_ends_is_not_read_to_its_end() {
    for part in ["/manifests/", "/blobs/"] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let registry = StandIn::start(move |request: &Request| {
            let is_endless = request.method == "GET" && request.path.contains(part);
            if is_endless { Reply::Endless(counter.clone()) } else { image(request) }
        });
        let sentence = silent(look_up(&client(options()), &registry.name("a")).await);
        assert!(sentence.contains("longer than 4194304 bytes"), "{sentence}");
        // Some of it was on its way.
        let sent = sent.load(Ordering::SeqCst);
        assert!((1 << 20..32 << 20).contains(&sent), "{sent} bytes were sent");
    }
}

#[tokio::test]
async fn patience_ends() {
    let registry = StandIn::start(|_: &Request| Reply::Nothing);
    let impatient = RegistryOptions { patience: Duration::from_millis(200), ..options() };
    let client = client(impatient);
    let sentence = within("it gives up", look_up(&client, &registry.name("a"))).await;
    assert!(silent(sentence).contains("longer than 200ms"));
    silent(look_up(&client, &registry.name("b")).await);
    assert_eq!(registry.count("/v2/b/"), 0, "that costs the next one no patience");
}

#[tokio::test]
async fn redirects_end() {
    let registry = StandIn::start(|request: &Request| Reply::redirect(&format!("{}x", request.path)));
    let sentence = silent(look_up(&client(options()), &registry.name("a")).await);
    assert!(sentence.contains("more than 3 times"), "{sentence}");
    assert_eq!(registry.asked().len(), 4);
}

/// A registry that answers nothing until it is let, and how many wait there at most.
fn gated() -> (StandIn, Arc<Gate>, Arc<AtomicUsize>) {
    let (gate, most) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let (passing, counted, waiting) = (gate.clone(), most.clone(), AtomicUsize::new(0));
    let registry = StandIn::start(move |request: &Request| {
        counted.fetch_max(waiting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        passing.pass();
        waiting.fetch_sub(1, Ordering::SeqCst);
        image(request)
    });
    (registry, gate, most)
}

#[tokio::test]
async fn looking_up_one_name_many_times_at_once_costs_one() {
    let (registry, gate, _) = gated();
    let client = client(doubting());
    let names = ["a", "a:latest"].map(|name| registry.name(name));
    let all = join_all((0..50).map(|number| look_up(&client, &names[number % 2])));
    let asked = async {
        until("it is asked", || !registry.asked().is_empty()).await;
        gate.open();
    };
    let (outcomes, ()) = within("all are told", async { tokio::join!(all, asked) }).await;
    let (manifest, _) = the_image();
    assert!(outcomes.into_iter().all(|outcome| outcome.unwrap().digest == Some(manifest.digest())));
    assert_eq!(registry.asked().len(), 3, "{:?}", registry.asked());
}

#[tokio::test]
async fn whoever_gives_up_takes_nothing_from_others() {
    let (registry, gate, _) = gated();
    let client = client(doubting());
    let name = registry.name("a");
    let mut first = Box::pin(look_up(&client, &name));
    let mut second = Box::pin(look_up(&client, &name));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    drop(first);
    let asked = async {
        until("it is asked", || !registry.asked().is_empty()).await;
        gate.open();
    };
    let (outcome, ()) = within("the other is told", async { tokio::join!(second, asked) }).await;
    outcome.unwrap();
    assert_eq!(registry.asked().len(), 3);
}

#[tokio::test]
async fn what_everybody_gave_up_is_begun_anew() {
    let (registry, gate, _) = gated();
    let client = client(options());
    let name = registry.name("a");
    // More than are under way at once, so that each that is given up must give its turn back.
    for number in 1..=20 {
        let asked = until("it is asked", || registry.count("HEAD") >= number);
        tokio::select! {
            outcome = look_up(&client, &name) => panic!("{outcome:?}"),
            () = asked => {}
        }
    }
    gate.open();
    within("it is told", look_up(&client, &name)).await.unwrap();
}

#[tokio::test]
async fn sixteen_are_under_way_at_once() {
    let (registry, gate, most) = gated();
    let client = client(options());
    let names: Vec<String> = (0..40).map(|number| registry.name(&format!("a{number}"))).collect();
    let all = join_all(names.iter().map(|name| look_up(&client, name)));
    let asked = async {
        until("sixteen are asked", || registry.asked().len() == 16).await;
        gate.open();
    };
    let (outcomes, ()) = within("all are told", async { tokio::join!(all, asked) }).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(most.load(Ordering::SeqCst), 16);
}
