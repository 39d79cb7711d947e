//! The port `Leases`.

use crate::{
    on_both,
    store::{Store, at},
};
use domain::lease::Leases;
use infra_diesel::DieselLeases;

on_both!(
    a_job_belongs_to_its_holder_until_the_lease_expires,
    a_holder_makes_its_own_lease_longer,
    of_many_that_ask_at_once_in_two_processes_one_holds_the_job,
);

async fn a_job_belongs_to_its_holder_until_the_lease_expires(store: Store) {
    let leases = DieselLeases::new(store.database.clone());
    assert!(leases.hold("sweep", "a", at(0), at(60)).await.unwrap());
    assert!(!leases.hold("sweep", "b", at(59), at(120)).await.unwrap());
    assert!(leases.hold("prune", "b", at(0), at(60)).await.unwrap(), "another job");
    assert!(leases.hold("sweep", "b", at(60), at(120)).await.unwrap());
    assert!(!leases.hold("sweep", "a", at(61), at(120)).await.unwrap());
}

async fn a_holder_makes_its_own_lease_longer(store: Store) {
    let leases = DieselLeases::new(store.database.clone());
    assert!(leases.hold("sweep", "a", at(0), at(60)).await.unwrap());
    assert!(leases.hold("sweep", "a", at(30), at(90)).await.unwrap());
    assert!(!leases.hold("sweep", "b", at(89), at(150)).await.unwrap());
}

async fn of_many_that_ask_at_once_in_two_processes_one_holds_the_job(store: Store) {
    let other = store.second_process();
    let asked: Vec<_> = (0..20)
        .map(|n| {
            let database = if n % 2 == 0 { store.database.clone() } else { other.database.clone() };
            let leases = DieselLeases::new(database);
            tokio::spawn(async move { leases.hold("sweep", &format!("holder-{n}"), at(0), at(60)).await.unwrap() })
        })
        .collect();
    let mut holders = 0;
    for answer in asked {
        holders += usize::from(answer.await.unwrap());
    }
    assert_eq!(holders, 1);
}
