use crate::{
    connection::AnyConnection,
    database::Database,
    failure::{Failure, Kind},
    paging::{self, newest_first},
    schema::{sessions, users},
    values::{from_us, sought, to_us, word},
};
use async_trait::async_trait;
use diesel::prelude::*;
use domain::{
    Error, Result,
    change::{Change, Done, Recorded},
    identity::{NewUser, Role, User, Users},
    ids::UserId,
    page::{Page, PageRequest},
    text::Name,
};

#[derive(Queryable)]
pub(super) struct Row {
    id: i64,
    name: String,
    role: String,
    password_hash: String,
    disabled: bool,
    revision: i64,
    created_at_us: i64,
    updated_at_us: i64,
}

impl TryFrom<Row> for User {
    type Error = Failure;

    fn try_from(row: Row) -> Result<Self, Failure> {
        Ok(Self {
            id: UserId(row.id),
            name: Name::trusted(row.name),
            role: word(&row.role, Role::parse)?,
            disabled: row.disabled,
            revision: row.revision,
            created_at: from_us(row.created_at_us)?,
            updated_at: from_us(row.updated_at_us)?,
        })
    }
}

fn insert(connection: &mut AnyConnection, new: &NewUser) -> Result<User, Failure> {
    let taken = || {
        let name = &new.name;
        Error::conflict("name_taken", format!("there is a user named \"{name}\" already; choose another name"))
    };
    let id: i64 = diesel::insert_into(users::table)
        .values((
            users::name.eq(new.name.as_str()),
            users::role.eq(new.role.as_str()),
            users::password_hash.eq(&new.password_hash),
            users::disabled.eq(false),
            users::revision.eq(1_i64),
            users::created_at_us.eq(to_us(new.created_at)),
            users::updated_at_us.eq(to_us(new.created_at)),
        ))
        .returning(users::id)
        .get_result(connection)
        .map_err(|error| Failure::from(error).when(Kind::Unique, taken))?;
    load(connection, UserId(id))
}

fn load(connection: &mut AnyConnection, id: UserId) -> Result<User, Failure> {
    let row: Option<Row> = users::table.find(id.0).first(connection).optional()?;
    row.ok_or_else(|| Failure::from(Error::not_found(User::KIND, id)))?.try_into()
}

fn guard(connection: &mut AnyConnection, id: UserId, revision: i64) -> Result<(), Failure> {
    let current = load(connection, id)?.revision;
    if current == revision { Ok(()) } else { Err(Error::Stale { what: format!("user {id}"), current }.into()) }
}

fn update(connection: &mut AnyConnection, user: &User, password_hash: Option<&String>) -> Result<(), Failure> {
    guard(connection, user.id, user.revision - 1)?;
    diesel::update(users::table.find(user.id.0))
        .set((
            users::role.eq(user.role.as_str()),
            users::disabled.eq(user.disabled),
            users::revision.eq(user.revision),
            users::updated_at_us.eq(to_us(user.updated_at)),
            password_hash.map(|hash| users::password_hash.eq(hash.clone())),
        ))
        .execute(connection)?;
    if user.disabled || password_hash.is_some() {
        diesel::delete(sessions::table.filter(sessions::user_id.eq(user.id.0))).execute(connection)?;
    }
    Ok(())
}

/// The users in the database.
pub struct DieselUsers {
    database: Database,
}

impl DieselUsers {
    /// The users of this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Users for DieselUsers {
    async fn create(&self, user: NewUser, change: Change) -> Result<Done<User>> {
        self.database
            .write(change, move |connection, entry| {
                let user = insert(connection, &user)?;
                let entry = entry.created(&user);
                Ok((user, Some(entry)))
            })
            .await
    }

    async fn list(&self, page: PageRequest) -> Result<Page<User>> {
        self.database
            .read(move |connection| {
                let (rows, total): (Vec<Row>, _) =
                    newest_first!(connection, page, users::id, users::table.into_boxed());
                let users = rows.into_iter().map(User::try_from).collect::<Result<Vec<_>, _>>()?;
                Ok(paging::page(users, &page, total, "-id", |user| user.id.0))
            })
            .await
    }

    async fn get(&self, id: UserId) -> Result<User> {
        self.database.read(move |connection| load(connection, id)).await
    }

    async fn find_by_name(&self, name: &str) -> Result<Option<(User, String)>> {
        let name = sought(name);
        self.database
            .read(move |connection| {
                let row: Option<Row> = users::table.filter(users::name.eq(&name)).first(connection).optional()?;
                row.map(|row| {
                    let hash = row.password_hash.clone();
                    Ok((User::try_from(row)?, hash))
                })
                .transpose()
            })
            .await
    }

    async fn update(&self, user: User, password_hash: Option<String>, change: Change) -> Result<Done<User>> {
        let work = move |connection: &mut AnyConnection, entry| {
            update(connection, &user, password_hash.as_ref())?;
            Ok((user.clone(), Some(entry)))
        };
        self.database.revoke(change, work).await
    }

    async fn delete(&self, user: User, change: Change) -> Result<Done<()>> {
        let work = move |connection: &mut AnyConnection, entry| {
            guard(connection, user.id, user.revision)?;
            diesel::delete(users::table.find(user.id.0)).execute(connection)?;
            Ok(((), Some(entry)))
        };
        self.database.revoke(change, work).await
    }
}
