//! Samples as they are, of several servers.

use super::{
    ports::{Piece, Visitor},
    range::Range,
};
use crate::ids::ServerId;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Keeps what is read, by server.
#[derive(Default)]
pub(super) struct Gathered(Mutex<HashMap<ServerId, Vec<(i64, f64)>>>);

impl Gathered {
    /// What was read and is in the range, in the order of times, which are microseconds since 1970.
    pub(super) fn take(&self, range: Range) -> HashMap<ServerId, Vec<(i64, f64)>> {
        let mut found = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for samples in found.values_mut() {
            samples.retain(|(time, _)| range.start_us() < *time && *time <= range.end_us());
            samples.sort_unstable_by_key(|(time, _)| *time);
        }
        found
    }
}

impl Visitor for Gathered {
    fn visit(&self, server: ServerId, pieces: Vec<Piece>) {
        let mut samples = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Samples(column) => samples.extend(column.times.into_iter().zip(column.values)),
                // Nobody asked for them.
                Piece::Hours(_) => {}
            }
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(server).or_default().extend(samples);
    }
}
