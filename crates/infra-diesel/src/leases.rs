//! Leases on background jobs: one row per job that was ever held, with who holds it and until when.

use crate::{connection::update, database::Database, schema::leases, values::to_us};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{Result, clock::Timestamp, lease::Leases};

/// The leases in the database.
pub struct DieselLeases {
    database: Database,
}

impl DieselLeases {
    /// The leases of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Leases for DieselLeases {
    async fn hold(&self, job: &str, holder: &str, now: Timestamp, until: Timestamp) -> Result<bool> {
        let (job, holder) = (job.to_owned(), holder.to_owned());
        self.database
            .write_silently(move |connection| {
                // Nobody else writes until this is committed: of two that ask at once, the second sees the first.
                let free = leases::holder.eq(&holder).or(leases::expires_at_us.le(to_us(now)));
                let row = leases::table.find(&job).filter(free);
                let set = (leases::holder.eq(&holder), leases::expires_at_us.eq(to_us(until)));
                let taken = update!(connection, diesel::update(row).set(set))?;
                if taken == 1 {
                    return Ok(true);
                }
                let others: i64 = leases::table.find(&job).count().get_result(connection)?;
                if others > 0 {
                    return Ok(false);
                }
                let row = (leases::job.eq(&job), leases::holder.eq(&holder), leases::expires_at_us.eq(to_us(until)));
                diesel::insert_into(leases::table).values(row).execute(connection)?;
                Ok(true)
            })
            .await
    }
}
