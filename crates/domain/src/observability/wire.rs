//! What agents say about what they measured.

use super::sample::Sample;
use serde::{Deserialize, Serialize};

/// The most samples in one [`SampleReport`]. An agent that was alone for a day has 1,440 to tell.
pub const MOST_IN_REPORT: usize = 500;

/// `POST /agent/metrics`: what was measured, oldest first. What is told again is stored once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleReport {
    /// The agent's session.
    pub session: String,
    /// At most [`MOST_IN_REPORT`].
    pub samples: Vec<Sample>,
}

/// What became of an array of samples. Whatever it says, none of them needs to be sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// How many are stored by it.
    pub accepted: usize,
    /// How many were there already, from an earlier time or from earlier in the array.
    pub duplicate: usize,
    /// Those that were refused.
    pub rejected: Vec<Rejected>,
}

/// A sample that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its place in the array, from 0.
    pub index: usize,
    /// Why.
    pub reason: String,
}
