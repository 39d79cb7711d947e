//! The hash chain: how rows are sealed, and how a chain is checked row by row.
//!
//! `hash(n) = HMAC-SHA-256(key, hash(n-1) || canonical(n))` (RFC 2104). The canonical text is stored as such, so that
//! a later version of the product can still check what an earlier one wrote.

use super::model::{AuditEntry, AuditRow, Checkpoint, Head, HeadMark, MarkKind};
use crate::{
    clock::Timestamp,
    digest::{hex, same_secret, sha256_hex},
};
use chrono::SecondsFormat;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Seals rows with a key that is kept outside the database.
#[derive(Clone)]
pub struct Seal {
    mac: Hmac<Sha256>,
    key_id: String,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Seal {
    /// A seal with this key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self { mac: keyed(key), key_id: sha256_hex(key).chars().take(8).collect() }
    }

    /// Tells keys apart without giving them away: the first 8 digits of the key's SHA-256.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The row that `entry` becomes after the row that `head` describes.
    #[must_use]
    pub fn row(&self, head: &Head, entry: &AuditEntry) -> StoredRow {
        let seq = head.seq + 1;
        let canonical = self.canonical(seq, entry);
        StoredRow {
            seq,
            created_at: entry.created_at,
            actor: entry.actor.clone(),
            action: entry.action.clone(),
            target: entry.target.clone(),
            outcome: entry.outcome.as_str().to_owned(),
            hash: self.over(&[&head.hash, &canonical]),
            canonical,
        }
    }

    /// A sealed note that rows up to `head` were let go.
    #[must_use]
    pub fn checkpoint(&self, head: Head, created_at: Timestamp) -> Checkpoint {
        let mac = self.checkpoint_mac(&head, created_at);
        Checkpoint { head, created_at, mac }
    }

    /// A text that can be compared with others but, without the key, neither read nor guessed.
    #[must_use]
    pub fn blind(&self, text: &str) -> String {
        self.over(&["blind", text])
    }

    /// A line for the file beside the database: `time kind seq hash mac`.
    #[must_use]
    pub fn mark_line(&self, mark: &HeadMark) -> String {
        let kind = match mark.kind {
            MarkKind::Head => "head",
            MarkKind::Restore => "restore",
        };
        let text = format!("{} {kind} {} {}", rfc3339(mark.at), mark.head.seq, mark.head.hash);
        let mac = self.over(&["mark", &text]);
        format!("{text} {mac}")
    }

    /// Reads [`Seal::mark_line`]; `None` if the line is not one that this key wrote.
    #[must_use]
    pub fn read_mark(&self, line: &str) -> Option<HeadMark> {
        let (text, mac) = line.rsplit_once(' ')?;
        if !same_secret(mac, &self.over(&["mark", text])) {
            return None;
        }
        let mut words = text.split(' ');
        let at = words.next()?.parse().ok()?;
        let kind = match words.next()? {
            "head" => MarkKind::Head,
            "restore" => MarkKind::Restore,
            _ => return None,
        };
        let seq = words.next()?.parse().ok()?;
        Some(HeadMark { at, kind, head: Head { seq, hash: words.next()?.to_owned() } })
    }

    fn checkpoint_mac(&self, head: &Head, created_at: Timestamp) -> String {
        self.over(&["checkpoint", &head.seq.to_string(), &head.hash, &rfc3339(created_at)])
    }

    fn canonical(&self, seq: i64, entry: &AuditEntry) -> String {
        let text = Canonical { seq, key_id: self.key_id.clone(), entry: entry.clone() };
        // Every part is a text, a number, or JSON already, so this cannot fail; an empty text would never verify.
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// HMAC over the parts, each followed by a separator that none of them contains.
    fn over(&self, parts: &[&str]) -> String {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(part.as_bytes());
            mac.update(b"\n");
        }
        hex(&mac.finalize().into_bytes())
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of 32 bytes")
}

fn rfc3339(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// What is sealed: the whole row in one text, fields in this order.
#[derive(Serialize, Deserialize)]
struct Canonical {
    seq: i64,
    key_id: String,
    #[serde(flatten)]
    entry: AuditEntry,
}

/// A row as the database holds it: the canonical text, and copies of what lists are filtered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// The row's number.
    pub seq: i64,
    /// Copy of the entry's time.
    pub created_at: Timestamp,
    /// Copy of the entry's actor.
    pub actor: String,
    /// Copy of the entry's action.
    pub action: String,
    /// Copy of the entry's target.
    pub target: Option<String>,
    /// Copy of the entry's outcome.
    pub outcome: String,
    /// The text that was sealed.
    pub canonical: String,
    /// The seal.
    pub hash: String,
}

impl StoredRow {
    /// The row as it is shown.
    ///
    /// # Errors
    /// [`crate::Error::Internal`] if the canonical text is not one of ours.
    pub fn read(self) -> crate::Result<AuditRow> {
        let text: Canonical = serde_json::from_str(&self.canonical).map_err(crate::Error::internal)?;
        Ok(AuditRow { seq: self.seq, entry: text.entry, hash: self.hash })
    }
}

/// What a check of the chain found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Whether every row is as it was written.
    pub valid: bool,
    /// How many rows were checked.
    pub checked: i64,
    /// The head of the chain as the database says.
    pub head: Head,
    /// The first row that is not right; `None` if all are.
    pub broken_at: Option<i64>,
    /// What is wrong with it.
    pub reason: Option<String>,
}

/// Checks a chain row by row, in the order of their numbers; stops at the first fault.
#[derive(Debug)]
pub struct ChainVerifier {
    seal: Seal,
    marks: Vec<HeadMark>,
    at: Head,
    checked: i64,
    fault: Option<(i64, String)>,
}

impl ChainVerifier {
    /// Starts at the checkpoint, or at the very first row. `marks` are the heads noted outside the database, oldest first.
    #[must_use]
    pub fn new(seal: Seal, checkpoint: Option<&Checkpoint>, marks: Vec<HeadMark>) -> Self {
        let at = checkpoint.map(|c| c.head.clone()).unwrap_or_default();
        let fault = checkpoint.and_then(|c| {
            let genuine = same_secret(&c.mac, &seal.checkpoint_mac(&c.head, c.created_at));
            (!genuine).then(|| (c.head.seq, "the checkpoint after the last pruned row was edited or forged".to_owned()))
        });
        Self { seal, marks: standing(marks, at.seq), at, checked: 0, fault }
    }

    /// Whether a fault was found; further rows would change nothing.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.fault.is_some()
    }

    /// Checks the next row.
    pub fn push(&mut self, row: &StoredRow) {
        if self.fault.is_some() {
            return;
        }
        self.checked += 1;
        let expected = self.at.seq + 1;
        let reason = self.fault_of(row, expected);
        // A missing row is named by its own number, not by that of the row that came in its place.
        self.fault = reason.map(|reason| (row.seq.min(expected), reason));
        self.at = Head { seq: row.seq, hash: row.hash.clone() };
    }

    fn fault_of(&self, row: &StoredRow, expected: i64) -> Option<String> {
        if row.seq < expected {
            return Some(format!("row {} does not belong there: the next one is row {expected}", row.seq));
        }
        if row.seq > expected {
            return Some(format!("row {expected} is missing: the next one there is row {}", row.seq));
        }
        let Ok(text) = serde_json::from_str::<Canonical>(&row.canonical) else {
            return Some("its canonical text was edited and cannot be read any more".to_owned());
        };
        if text.seq != row.seq {
            return Some(format!("it holds the content of row {}: rows were swapped or renumbered", text.seq));
        }
        if let Some(column) = edited_column(row, &text.entry) {
            return Some(format!("its column {column} was edited: it differs from the sealed text"));
        }
        if text.key_id != self.seal.key_id {
            let ours = &self.seal.key_id;
            return Some(format!(
                "it was sealed with the audit key {}, but this server has the key {ours}",
                text.key_id
            ));
        }
        if !same_secret(&row.hash, &self.seal.over(&[&self.at.hash, &row.canonical])) {
            return Some(
                "its seal does not fit: its text, its hash or the hash of the row before it was edited".to_owned(),
            );
        }
        let noted = self.marks.iter().find(|mark| mark.head.seq == row.seq && mark.head.hash != row.hash)?;
        Some(format!(
            "another row {} was noted in the head file at {}: the log was rewritten",
            row.seq,
            rfc3339(noted.at)
        ))
    }

    /// The verdict, once every row was pushed. `head` is what the database says the head is.
    #[must_use]
    pub fn finish(mut self, head: Head) -> Verification {
        if self.fault.is_none() {
            self.fault = self.tail_fault(&head);
        }
        let (broken_at, reason) = self.fault.unzip();
        Verification { valid: broken_at.is_none(), checked: self.checked, head, broken_at, reason }
    }

    fn tail_fault(&self, head: &Head) -> Option<(i64, String)> {
        let last = &self.at;
        if head.seq > last.seq {
            return Some((last.seq + 1, format!("rows {} to {} are missing at the end", last.seq + 1, head.seq)));
        }
        if head != last {
            return Some((last.seq, "the head of the chain was edited: it does not describe the last row".to_owned()));
        }
        let mark = self.marks.iter().rev().find(|mark| mark.head.seq > last.seq)?;
        let (from, to, at) = (last.seq + 1, mark.head.seq, rfc3339(mark.at));
        Some((from, format!("rows {from} to {to} were cut off: row {to} was noted in the head file at {at}")))
    }
}

/// The marks that still apply: a restore voids what was noted above it before, a checkpoint what lies below it.
fn standing(marks: Vec<HeadMark>, first: i64) -> Vec<HeadMark> {
    let mut standing: Vec<HeadMark> = Vec::new();
    for mark in marks {
        if mark.kind == MarkKind::Restore {
            standing.clear();
        }
        standing.push(mark);
    }
    standing.retain(|mark| mark.head.seq >= first);
    standing
}

fn edited_column(row: &StoredRow, sealed: &AuditEntry) -> Option<&'static str> {
    let columns = [
        ("created_at_us", row.created_at == sealed.created_at),
        ("actor", row.actor == sealed.actor),
        ("action", row.action == sealed.action),
        ("target", row.target == sealed.target),
        ("outcome", row.outcome == sealed.outcome.as_str()),
    ];
    columns.into_iter().find(|(_, same)| !same).map(|(name, _)| name)
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
