use super::{tokens, users};
use crate::{
    connection::AnyConnection,
    database::Database,
    failure::Failure,
    fleet, idempotency,
    schema::{sessions, tickets, tokens as token_table, users as user_table},
    values::{from_us, to_us},
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Result,
    audit::AuditEntry,
    change::Change,
    clock::Timestamp,
    identity::{Credential, NewSession, Session, Sessions, Token, User},
    ids::{SessionId, UserId},
};
use std::time::Instant;

type Row = (i64, i64, String, i64, i64);

fn session((id, user_id, _digest, expires_at_us, created_at_us): Row) -> Result<Session, Failure> {
    Ok(Session {
        id: SessionId(id),
        user_id: UserId(user_id),
        expires_at: from_us(expires_at_us)?,
        created_at: from_us(created_at_us)?,
    })
}

fn insert(connection: &mut AnyConnection, new: &NewSession) -> Result<Session, Failure> {
    let id: i64 = diesel::insert_into(sessions::table)
        .values((
            sessions::user_id.eq(new.user_id.0),
            sessions::secret_digest.eq(&new.secret_digest),
            sessions::expires_at_us.eq(to_us(new.expires_at)),
            sessions::created_at_us.eq(to_us(new.created_at)),
        ))
        .returning(sessions::id)
        .get_result(connection)?;
    Ok(Session { id: SessionId(id), user_id: new.user_id, expires_at: new.expires_at, created_at: new.created_at })
}

fn find(connection: &mut AnyConnection, digest: &str) -> Result<Option<Credential>, Failure> {
    let token: Option<tokens::Row> =
        token_table::table.filter(token_table::secret_digest.eq(digest)).first(connection).optional()?;
    if let Some(token) = token {
        return Ok(Some(Credential::Token(Token::try_from(token)?)));
    }
    if let Some((server, name)) = fleet::by_token(connection, digest)? {
        return Ok(Some(Credential::Agent { server, name }));
    }
    let found: Option<(Row, users::Row)> = sessions::table
        .inner_join(user_table::table)
        .filter(sessions::secret_digest.eq(digest))
        .first(connection)
        .optional()?;
    found.map(|(row, user)| Ok(Credential::Session(session(row)?, User::try_from(user)?))).transpose()
}

/// The console sessions and tickets in the database.
pub struct DieselSessions {
    database: Database,
}

impl DieselSessions {
    /// The sessions of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Sessions for DieselSessions {
    async fn find_credential(&self, secret_digest: &str) -> Result<Option<Credential>> {
        let (cache, now) = (self.database.credentials(), Instant::now());
        let (known, generation) = cache.find(secret_digest, now);
        if known.is_some() {
            return Ok(known);
        }
        let digest = secret_digest.to_owned();
        let found = self.database.read(move |connection| find(connection, &digest)).await?;
        if let Some(credential) = &found {
            cache.keep(secret_digest.to_owned(), credential.clone(), now, generation);
        }
        Ok(found)
    }

    async fn create(&self, session: NewSession, entry: AuditEntry) -> Result<Session> {
        let done = self.database.write(Change::from(entry), move |connection, entry| {
            let session = insert(connection, &session)?;
            let entry = entry.created(&session);
            Ok((session, Some(entry)))
        });
        Ok(done.await?.value)
    }

    async fn delete(&self, id: SessionId, entry: AuditEntry) -> Result<()> {
        let work = move |connection: &mut AnyConnection, entry| {
            let gone = diesel::delete(sessions::table.find(id.0)).execute(connection)?;
            Ok(((), (gone > 0).then_some(entry)))
        };
        self.database.revoke(Change::from(entry), work).await.map(|done| done.value)
    }

    async fn ticket_create(
        &self,
        digest: String,
        credential: String,
        expires_at: Timestamp,
        entry: AuditEntry,
    ) -> Result<()> {
        let work = move |connection: &mut AnyConnection, entry| {
            diesel::insert_into(tickets::table)
                .values((
                    tickets::secret_digest.eq(&digest),
                    tickets::credential_digest.eq(&credential),
                    tickets::expires_at_us.eq(to_us(expires_at)),
                ))
                .execute(connection)?;
            Ok(((), Some(entry)))
        };
        self.database.write(Change::from(entry), work).await.map(|done| done.value)
    }

    async fn ticket_take(&self, digest: &str, now: Timestamp) -> Result<Option<String>> {
        let digest = digest.to_owned();
        self.database
            .write_silently(move |connection| {
                let ticket = tickets::table.find(&digest).filter(tickets::expires_at_us.gt(to_us(now)));
                let credential: Option<String> =
                    ticket.select(tickets::credential_digest).first(connection).optional()?;
                // Of two that take it at once, the one whose row is gone already gets nothing.
                let taken = diesel::delete(tickets::table.find(&digest)).execute(connection)?;
                Ok(credential.filter(|_| taken == 1))
            })
            .await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize> {
        self.database
            .write_silently(move |connection| {
                let ended = diesel::delete(sessions::table.filter(sessions::expires_at_us.le(to_us(now))))
                    .execute(connection)?;
                let expired =
                    diesel::delete(tickets::table.filter(tickets::expires_at_us.le(to_us(now)))).execute(connection)?;
                Ok(ended + expired + idempotency::sweep(connection, now)?)
            })
            .await
    }
}
