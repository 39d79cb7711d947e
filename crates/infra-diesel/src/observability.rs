//! What was measured, in a database of its own (and alerts, in the one of all else): the newest samples as rows, all others as compressed columns of a day.
//!
//! On `SQLite` that is a file beside the database, on `PostgreSQL` tables of the same one; either way it has a writer of
//! its own, so that samples and changes of the fleet never wait for each other.

mod alerts;
mod codec;
mod days;
mod forget;
mod merge;
mod read;
mod take;

pub use alerts::{DieselAlertRules, DieselAlertTargets, DieselAlerts, DieselDeliveries};

use crate::{
    connection::AnyConnection,
    database::DatabaseOptions,
    failure::Failure,
    feed::Trace,
    store::{Store, stopping},
    url::DatabaseUrl,
};
use async_trait::async_trait;
use codec::day_of;
use days::{Clash, Day, Key, Sealed, has_moved, write};
use diesel::{prelude::*, sql_query, sql_types::BigInt};
use domain::{
    Error, Result,
    clock::Timestamp,
    error::with_causes,
    ids::ServerId,
    observability::{Kept, Sample, Samples, Visitor, Wanted},
    page::{Page, PageRequest},
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};
use take::{Intake, Row};
use tokio::task::JoinSet;

/// With as many samples of a day at once they are compressed right away: rows would be written only to be removed.
const MANY: usize = 200;
/// How often a day is read again that had changed meanwhile.
const TRIES: usize = 3;
/// How many days are looked for that are to be sealed.
const DAYS_AT_ONCE: i64 = 64;
/// How many servers are read at one moment of the database.
const SERVERS_AT_ONCE: usize = 64;

/// Samples, in the database.
pub struct DieselSamples {
    store: Store,
    intake: Arc<Intake>,
}

impl DieselSamples {
    /// Opens what belongs to the database at `url`, whose schema must be current already (see [`crate::migrate()`]).
    ///
    /// # Errors
    /// If its threads cannot be started.
    pub fn open(url: &DatabaseUrl, options: DatabaseOptions) -> Result<Self> {
        Ok(Self { store: Store::open(url.of_samples(), options, None)?, intake: Arc::default() })
    }

    /// Lets the writer finish what waits, and ends it.
    pub async fn close(&self) {
        self.store.close().await;
    }

    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut AnyConnection) -> Result<T, Failure> + Send + 'static,
    {
        self.store.submit(move |connection| Ok((work(connection)?, Trace::default()))).await
    }

    /// Moves the rows of a day into its columns; whether that was done. What had changed meanwhile is done the next time.
    async fn seal_day(&self, key: Key) -> Result<bool> {
        let load = move |connection: &mut AnyConnection| {
            read::at_once(connection, |connection| Day::load(connection, key))?.seal(key)
        };
        let Some(day) = self.store.read(load).await? else { return Ok(false) };
        let outcome = self.write(move |connection| write(connection, std::slice::from_ref(&day), &[])).await;
        if has_moved(&outcome) { Ok(false) } else { outcome.map(|()| true) }
    }

    /// Stores samples in the compressed columns of their days; how many readings of each are new.
    async fn store_days(&self, server: ServerId, samples: Arc<[Sample]>, clash: Clash) -> Result<Vec<usize>> {
        for _ in 0..TRIES {
            let theirs = samples.clone();
            let load =
                move |c: &mut AnyConnection| read::at_once(c, |connection| merge(connection, server, &theirs, clash));
            let Merged { added, sealed, newest } = self.store.read(load).await?;
            let outcome = self.write(move |connection| write(connection, &sealed, &newest)).await;
            if !has_moved(&outcome) {
                return outcome.map(|()| added);
            }
        }
        // So much comes of these days that they are never as they were read: nobody else writes meanwhile.
        let at_last = move |connection: &mut AnyConnection| {
            let Merged { added, sealed, newest } = merge(connection, server, &samples, clash)?;
            write(connection, &sealed, &newest)?;
            Ok(added)
        };
        self.write(at_last).await
    }

    /// Merges samples into rows; those whose times are sealed are left to be done.
    async fn merge_rows(&self, samples: &[(ServerId, Sample)], places: &[usize]) -> Result<merge::Added> {
        let rows = places.iter().filter_map(|place| samples.get(*place));
        let rows: Arc<[Row]> = rows.map(|(server, sample)| Row::new(*server, sample)).collect();
        let mut tries = 0;
        loop {
            let these = rows.clone();
            let outcome = self.write(move |connection| merge::add(connection, &these)).await;
            if !merge::has_raced(&outcome) {
                return outcome;
            }
            tries += 1;
            if tries >= TRIES {
                let reason = "another process stores the same samples; try again".to_owned();
                return Err(Error::Unavailable { reason, source: None });
            }
        }
    }
}

/// The places of each server's samples.
fn by_server(samples: &[(ServerId, Sample)], places: impl Iterator<Item = usize>) -> BTreeMap<ServerId, Vec<usize>> {
    let mut found: BTreeMap<ServerId, Vec<usize>> = BTreeMap::new();
    for place in places {
        if let Some((server, _)) = samples.get(place) {
            found.entry(*server).or_default().push(place);
        }
    }
    found
}

/// What is to be written of samples that come together.
struct Merged {
    /// How many readings of each sample are new.
    added: Vec<usize>,
    sealed: Vec<Sealed>,
    newest: Vec<Row>,
}

/// Adds samples to their days, and compresses those again.
fn merge(
    connection: &mut AnyConnection,
    server: ServerId,
    samples: &[Sample],
    clash: Clash,
) -> Result<Merged, Failure> {
    let mut days: BTreeMap<Key, Day> = BTreeMap::new();
    let mut added = Vec::with_capacity(samples.len());
    for sample in samples {
        let day = match days.entry(key(server, sample)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let day = Day::load(connection, *new.key())?;
                new.insert(day)
            }
        };
        added.push(day.add(sample.at.timestamp_micros(), &sample.readings, clash));
    }
    let sealed = days.iter().map(|(key, day)| day.seal(*key)).collect::<Result<Vec<_>, Failure>>()?;
    // As it is by now: the first of its time, perhaps with more readings than came with this one.
    let newest = samples.iter().max_by_key(|sample| sample.at).and_then(|sample| {
        let readings = days.get(&key(server, sample))?.at(sample.at.timestamp_micros())?;
        Some(Row::new(server, &Sample { at: sample.at, readings: *readings }))
    });
    Ok(Merged { added, sealed: sealed.into_iter().flatten().collect(), newest: newest.into_iter().collect() })
}

fn key(server: ServerId, sample: &Sample) -> Key {
    (server.0, day_of(sample.at.timestamp_micros()))
}

const TO_SEAL: &str = "
    SELECT server_id, at_us / 86400000000 AS day FROM samples
    GROUP BY 1, 2 HAVING min(at_us) < $1 ORDER BY min(at_us) LIMIT $2";

#[derive(QueryableByName)]
struct ToSeal {
    #[diesel(sql_type = BigInt)]
    server_id: i64,
    #[diesel(sql_type = BigInt)]
    day: i64,
}

#[async_trait]
impl Samples for DieselSamples {
    async fn store(&self, server: ServerId, samples: Vec<Sample>) -> Result<Vec<Kept>> {
        let days: BTreeSet<Key> = samples.iter().map(|sample| key(server, sample)).collect();
        if samples.len() >= MANY * days.len().max(1) {
            let added = self.store_days(server, samples.into(), Clash::Duplicate).await?;
            return Ok(added.into_iter().map(|added| if added > 0 { Kept::New } else { Kept::Duplicate }).collect());
        }
        let rows = samples.iter().map(|sample| Row::new(server, sample)).collect();
        self.intake.store(&self.store, rows).await
    }

    async fn merge(&self, samples: Vec<(ServerId, Sample)>) -> Result<Vec<usize>> {
        let mut added = vec![0; samples.len()];
        let (mut few, mut to_days) = (Vec::new(), Vec::new());
        for places in by_server(&samples, 0..samples.len()).into_values() {
            let days: BTreeSet<Key> =
                places.iter().filter_map(|place| samples.get(*place)).map(|(server, s)| key(*server, s)).collect();
            if places.len() >= MANY * days.len() { to_days.extend(places) } else { few.extend(places) }
        }
        if !few.is_empty() {
            let merge::Added { counts, sealed } = self.merge_rows(&samples, &few).await?;
            note(&mut added, &few, &counts);
            to_days.extend(sealed.iter().filter_map(|place| few.get(*place)));
        }
        for (server, places) in by_server(&samples, to_days.into_iter()) {
            let theirs = places.iter().filter_map(|place| samples.get(*place)).map(|(_, sample)| *sample).collect();
            note(&mut added, &places, &self.store_days(server, theirs, Clash::Merge).await?);
        }
        Ok(added)
    }

    async fn list(&self, server: ServerId, page: PageRequest) -> Result<Page<Sample>> {
        self.store.read(move |connection| read::list(connection, server, &page)).await
    }

    async fn newest(&self, servers: Vec<ServerId>) -> Result<BTreeMap<ServerId, Sample>> {
        let servers: Vec<i64> = servers.into_iter().map(|server| server.0).collect();
        self.store.read(move |connection| read::newest(connection, &servers)).await
    }

    async fn read(&self, wanted: Wanted, visitor: Arc<dyn Visitor>) -> Result<()> {
        let parallel = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let share = wanted.servers.len().div_ceil(parallel).clamp(1, SERVERS_AT_ONCE);
        let mut shares = wanted.servers.chunks(share).map(<[ServerId]>::to_vec);
        let mut reading = JoinSet::new();
        loop {
            while reading.len() < parallel
                && let Some(servers) = shares.next()
            {
                let share = Wanted { servers, ..wanted.clone() };
                reading.spawn(read_share(self.store.clone(), share, visitor.clone()));
            }
            match reading.join_next().await {
                Some(done) => done.map_err(Error::internal)??,
                None => return Ok(()),
            }
        }
    }

    async fn seal(&self, before: Timestamp) -> Result<usize> {
        let before = before.timestamp_micros();
        let find = move |connection: &mut AnyConnection| {
            let query = sql_query(TO_SEAL).bind::<BigInt, _>(before).bind::<BigInt, _>(DAYS_AT_ONCE);
            let found: Vec<ToSeal> = query.load(connection)?;
            Ok(found)
        };
        let mut sealed = 0;
        for ToSeal { server_id, day } in self.store.read(find).await? {
            match self.seal_day((server_id, day)).await {
                Ok(done) => sealed += usize::from(done),
                Err(error @ Error::Internal { .. }) => {
                    // One day that cannot be read must not keep all others from being sealed.
                    tracing::error!(
                        error = %with_causes(&error),
                        "day {day} of server {server_id} cannot be compressed; its newer samples stay as they are"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(sealed)
    }

    async fn forget_before(&self, before: Timestamp) -> Result<usize> {
        let day = day_of(before.timestamp_micros());
        let mut forgotten = 0;
        loop {
            let step = self.write(move |connection| forget::step(connection, &forget::Old::Before(day))).await?;
            if step.rows == 0 {
                return Ok(forgotten);
            }
            forgotten += step.days;
        }
    }

    async fn servers(&self) -> Result<Vec<ServerId>> {
        self.store.read(forget::servers).await
    }

    async fn forget_server(&self, server: ServerId) -> Result<()> {
        while self.write(move |connection| forget::step(connection, &forget::Old::Of(server.0))).await?.rows > 0 {}
        Ok(())
    }
}

/// Notes counts at their places.
fn note(added: &mut [usize], places: &[usize], counts: &[usize]) {
    for (place, count) in places.iter().zip(counts) {
        if let Some(known) = added.get_mut(*place) {
            *known = *count;
        }
    }
}

/// Reads, and hands over on a thread that may take its time.
async fn read_share(store: Store, wanted: Wanted, visitor: Arc<dyn Visitor>) -> Result<()> {
    let metric = wanted.metric;
    let stored = store.read(move |connection| read::load(connection, &wanted)).await?;
    let visiting = tokio::task::spawn_blocking(move || {
        for (server, stored) in stored {
            visitor.visit(server, stored.pieces(metric)?);
        }
        Ok::<_, Failure>(())
    });
    Ok(visiting.await.map_err(|_panic| stopping())??)
}
