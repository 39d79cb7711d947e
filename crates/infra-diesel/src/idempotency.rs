//! Answers kept under idempotency keys for 24 hours, in the transaction of the write that they answer.

use crate::{
    connection::{AnyConnection, each},
    failure::{Failure, Kind},
    schema::idempotency_keys::dsl,
    values::{from_json, to_json, to_us},
};
use diesel::prelude::*;
use domain::{Error, change::Once, clock::Timestamp, digest::same_secret};
use serde::{Serialize, de::DeserializeOwned};

/// How long an answer is kept.
const KEPT_US: i64 = 24 * 3600 * 1_000_000;

/// The answer that was kept under this key.
pub(crate) fn find<T: DeserializeOwned>(
    connection: &mut AnyConnection,
    once: &Once,
    now: Timestamp,
) -> Result<Option<T>, Failure> {
    let row: Option<(String, String)> = dsl::idempotency_keys
        .filter(dsl::caller.eq(&once.caller).and(dsl::idempotency_key.eq(&once.key)))
        .filter(dsl::created_at_us.gt(to_us(now) - KEPT_US))
        .select((dsl::fingerprint, dsl::answer))
        .first(connection)
        .optional()?;
    let Some((fingerprint, answer)) = row else { return Ok(None) };
    if !same_secret(&fingerprint, &once.fingerprint) {
        let reason = "this Idempotency-Key was used for another request within the last 24 hours; choose a new key";
        return Err(Error::conflict("idempotency_key_reused", reason).into());
    }
    // An answer that an earlier version kept in another shape is better refused than repeated.
    let unreadable = || Error::conflict("already_done", "an earlier request with this Idempotency-Key was carried out");
    from_json(&answer).map(Some).map_err(|_unreadable| unreadable().into())
}

/// Keeps the answer under the key. A twin of this request that another process is committing makes this one start over.
pub(crate) fn keep<T: Serialize>(
    connection: &mut AnyConnection,
    once: &Once,
    answer: &T,
    now: Timestamp,
) -> Result<(), Failure> {
    let expired = dsl::caller.eq(&once.caller).and(dsl::idempotency_key.eq(&once.key));
    diesel::delete(dsl::idempotency_keys.filter(expired.and(dsl::created_at_us.le(to_us(now) - KEPT_US))))
        .execute(connection)?;
    let row = (
        dsl::caller.eq(&once.caller),
        dsl::idempotency_key.eq(&once.key),
        dsl::fingerprint.eq(&once.fingerprint),
        dsl::answer.eq(to_json(answer)?),
        dsl::created_at_us.eq(to_us(now)),
    );
    match diesel::insert_into(dsl::idempotency_keys).values(row).execute(connection).map_err(Failure::from) {
        Err(Failure::Database(Kind::Unique, source)) => Err(Failure::Database(Kind::Retry, source)),
        outcome => outcome.map(|_| ()),
    }
}

/// Forgets answers whose time is over.
pub(crate) fn sweep(connection: &mut AnyConnection, now: Timestamp) -> Result<usize, Failure> {
    let old = dsl::idempotency_keys.filter(dsl::created_at_us.le(to_us(now) - KEPT_US));
    Ok(each!(connection, c => diesel::delete(old).execute(c))?)
}
