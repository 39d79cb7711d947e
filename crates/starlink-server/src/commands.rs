//! The commands besides `serve`. What a command answers goes to standard output, everything else to standard error.

use crate::{
    adapters::Cost,
    cli::{CopyArgs, TokenArgs},
    composition::{Machine, Services, Site, StartError},
    config::Config,
};
use chrono::TimeDelta;
use domain::{
    Error,
    audit::{AuditEntry, HeadMark, MarkKind, RESTORE},
    identity::{Actor, Scopes},
};
use infra_diesel::{CopyReport, SchemaState, samples_beside, schema_state};
use std::{io::Write, path::Path};

/// Brings the database to this version's schema.
///
/// # Errors
/// As [`Site::migrate`].
pub fn migrate(config: &Config, out: &mut dyn Write) -> Result<(), StartError> {
    let report = Site::open(config, &Machine::real())?.migrate()?;
    if let Some(backup) = &report.backup {
        writeln!(out, "saved to {} before", backup.display())?;
    }
    for version in &report.applied {
        writeln!(out, "applied migration {version}")?;
    }
    writeln!(out, "the schema is current")?;
    Ok(())
}

/// Makes a token and prints its secret.
///
/// # Errors
/// If the database was never used, or there is a token of that name.
pub async fn token_create(config: &Config, args: TokenArgs, out: &mut dyn Write) -> Result<(), StartError> {
    let machine = Machine::real();
    let site = Site::open(config, &machine)?;
    if schema_state(&site.url)? != SchemaState::Current {
        let reason =
            "the database is not there or not current yet; start the server once, or run `starlink-server migrate`";
        return Err(Error::conflict("not_migrated", reason).into());
    }
    let services = Services::open(&site, &machine, Cost::LEAST)?;
    let scopes = if args.scopes.is_empty() { Scopes::all() } else { Scopes::only(args.scopes) };
    let expires_at = args.expires_in_days.map(|days| machine.clock.now() + TimeDelta::days(i64::from(days)));
    let cli = Actor::system("cli");
    let made = services.tokens.token_create(&cli, args.name, args.role, scopes, expires_at, None).await;
    services.close().await;
    writeln!(out, "{}", made?.1.expose())?;
    Ok(())
}

/// Copies the database into a file.
///
/// # Errors
/// As [`infra_diesel::backup`].
pub fn backup(config: &Config, file: &Path, out: &mut dyn Write) -> Result<(), StartError> {
    let site = Site::open(config, &Machine::real())?;
    let report = infra_diesel::backup(&site.url, file)?;
    tell(&report, out)?;
    writeln!(out, "wrote {} and, with what was measured, {}", file.display(), samples_beside(file).display())?;
    writeln!(
        out,
        "keep {} with it, elsewhere: without that key the audit log cannot be verified",
        config.audit_key_file.display()
    )?;
    Ok(())
}

/// Replaces the database by what a file holds.
///
/// # Errors
/// As [`infra_diesel::restore`].
pub async fn restore(config: &Config, file: &Path, out: &mut dyn Write) -> Result<(), StartError> {
    let machine = Machine::real();
    let site = Site::open(config, &machine)?;
    let at = machine.clock.now();
    let entry = AuditEntry::new(&Actor::system("cli"), RESTORE, at)
        .because(format!("the database was replaced by the backup {}", file.display()));
    let (report, head) = infra_diesel::restore(file, &site.url, &site.seal, &entry)?;
    // Noted with the time after it, so that nothing which was replaced can seem to be newer.
    site.heads.append(HeadMark { at: machine.clock.now(), kind: MarkKind::Restore, head }).await?;
    tell(&report, out)?;
    writeln!(out, "restored {}", file.display())?;
    Ok(())
}

/// Copies one database into another, empty one.
///
/// # Errors
/// As [`infra_diesel::copy`].
pub fn copy(args: &CopyArgs, out: &mut dyn Write) -> Result<(), StartError> {
    let report = infra_diesel::copy(&args.from, &args.to)?;
    tell(&report, out)?;
    writeln!(out, "copied {} rows and compared each of them", report.rows())?;
    Ok(())
}

fn tell(report: &CopyReport, out: &mut dyn Write) -> std::io::Result<()> {
    for (table, rows) in &report.tables {
        writeln!(out, "{table}: {rows} rows")?;
    }
    Ok(())
}
