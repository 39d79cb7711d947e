use crate::{
    connection::{AnyConnection, update},
    database::Database,
    failure::{Failure, Kind},
    paging::{self, newest_first},
    schema::tokens,
    values::{from_json, from_us, to_json, to_us, word},
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    change::{Change, Done, Recorded},
    clock::Timestamp,
    identity::{NewToken, Role, Scopes, Token, Tokens},
    ids::TokenId,
    page::{Page, PageRequest},
    text::Name,
};

#[derive(Queryable)]
pub(super) struct Row {
    id: i64,
    name: String,
    _secret_digest: String,
    role: String,
    scopes: Option<String>,
    expires_at_us: Option<i64>,
    last_used_at_us: Option<i64>,
    created_by: String,
    created_at_us: i64,
}

impl TryFrom<Row> for Token {
    type Error = Failure;

    fn try_from(row: Row) -> Result<Self, Failure> {
        Ok(Self {
            id: TokenId(row.id),
            name: Name::trusted(row.name),
            role: word(&row.role, Role::parse)?,
            scopes: row.scopes.map_or(Ok(Scopes::all()), |scopes| from_json(&scopes))?,
            expires_at: row.expires_at_us.map(from_us).transpose()?,
            last_used_at: row.last_used_at_us.map(from_us).transpose()?,
            created_by: row.created_by,
            created_at: from_us(row.created_at_us)?,
        })
    }
}

fn insert(connection: &mut AnyConnection, new: &NewToken) -> Result<Token, Failure> {
    let taken = || {
        let name = &new.name;
        Error::conflict("name_taken", format!("there is a token named \"{name}\" already; choose another name"))
    };
    let scopes = new.scopes.rooms().map(to_json).transpose()?;
    let id: i64 = diesel::insert_into(tokens::table)
        .values((
            tokens::name.eq(new.name.as_str()),
            tokens::secret_digest.eq(&new.secret_digest),
            tokens::role.eq(new.role.as_str()),
            tokens::scopes.eq(scopes),
            tokens::expires_at_us.eq(new.expires_at.map(to_us)),
            tokens::created_by.eq(&new.created_by),
            tokens::created_at_us.eq(to_us(new.created_at)),
        ))
        .returning(tokens::id)
        .get_result(connection)
        .map_err(|error| Failure::from(error).when(Kind::Unique, taken))?;
    load(connection, TokenId(id))
}

fn load(connection: &mut AnyConnection, id: TokenId) -> Result<Token, Failure> {
    let row: Option<Row> = tokens::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Failure::from(Error::not_found(Token::KIND, id)))?.try_into()
}

fn delete(connection: &mut AnyConnection, id: TokenId) -> Result<(), Failure> {
    match diesel::delete(tokens::table.find(id.0)).execute(connection)? {
        0 => Err(Error::not_found(Token::KIND, id).into()),
        _ => Ok(()),
    }
}

/// The API tokens in the database.
pub struct DieselTokens {
    database: Database,
}

impl DieselTokens {
    /// The tokens of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Tokens for DieselTokens {
    async fn create(&self, token: NewToken, change: Change) -> Result<Done<Token>> {
        self.database
            .write(change, move |connection, entry| {
                let token = insert(connection, &token)?;
                let entry = entry.created(&token);
                Ok((token, Some(entry)))
            })
            .await
    }

    async fn list(&self, page: PageRequest) -> Result<Page<Token>> {
        self.database
            .read(move |connection| {
                let (rows, total): (Vec<Row>, _) =
                    newest_first!(connection, page, tokens::id, tokens::table.into_boxed());
                let tokens = rows.into_iter().map(Token::try_from).collect::<Result<Vec<_>, _>>()?;
                Ok(paging::page(tokens, &page, total, "-id", |token| token.id.0))
            })
            .await
    }

    async fn get(&self, id: TokenId) -> Result<Token> {
        self.database.read(move |connection| load(connection, id)).await
    }

    async fn delete(&self, token: Token, change: Change) -> Result<Done<()>> {
        let work = move |connection: &mut AnyConnection, entry| Ok((delete(connection, token.id)?, Some(entry)));
        self.database.revoke(change, work).await
    }

    async fn touch(&self, used: Vec<(TokenId, Timestamp)>) -> Result<()> {
        self.database
            .write_silently(move |connection| {
                for (id, at) in &used {
                    let earlier = tokens::last_used_at_us.is_null().or(tokens::last_used_at_us.lt(to_us(*at)));
                    let row = tokens::table.find(id.0).filter(earlier);
                    update!(connection, diesel::update(row).set(tokens::last_used_at_us.eq(to_us(*at))))?;
                }
                Ok(())
            })
            .await
    }
}
