//! How good a server is for a task, as data whose order is the order of the criteria. Whole numbers only, so that equal
//! inputs place equally on every machine.
//!
//! What is compared between servers of different sizes and a mix of resources is shares of their capacity. A server is
//! as crowded as its most crowded resource: the dominant share of Ghodsi et al., "Dominant Resource Fairness" (NSDI
//! 2011), here of all that is on a server instead of what one user has. Only resources that the task asks for count
//! there, since only those it has to share. How full it is altogether is the mean over what it has, as Kubernetes'
//! `NodeResourcesFit` scores it.

use super::{amounts::Amounts, snapshot::ServerRow};
use crate::{ids::ServerId, pools::PoolStrategy};

/// How good a server is for a task; the lowest ranks first. Fields compare from top to bottom.
///
/// Servers of pools with different strategies are compared by the same numbers: one that is nearly empty, to be spread
/// over, is as good as one that is nearly full, to be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// 0 if the task's programs run natively, 1 if they would be emulated.
    pub emulated: u8,
    /// What its pool's strategy looks at first, in permille of capacity once the task is placed. To spread: how full
    /// the fullest resource is that the task asks for. To pack: how empty the server is, as a mean over what it has.
    pub first_permille: u32,
    /// What the strategy looks at next, likewise: to spread, how full the server is as a mean; to pack, how full the
    /// fullest resource is that the task asks for, so that no resource is used up while others are left over.
    pub second_permille: u32,
    /// Breaks ties, so that equal inputs place equally.
    pub server: ServerId,
}

/// All of a resource, in permille.
const WHOLE: u64 = 1000;
/// The binary digits that a factor of a [`Scale`] keeps behind the point.
const DIGITS: u32 = 54;
/// The binary digits that a permille takes in a [`Score`].
const PERMILLE: u32 = 10;

/// What turns free amounts into permille of a capacity without dividing: a division takes many times as long as a
/// multiplication, and would be made four times for every server. (Division by an invariant, as in Granlund and
/// Montgomery, PLDI 1994.) Exact for capacities below 2^27 units; above, the result may be one too high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    factors: [u64; 4],
}

impl Scale {
    pub(super) fn of(capacity: &Amounts) -> Self {
        let factors = capacity.map(|capacity| match u64::try_from(capacity) {
            Ok(0) | Err(_) => 0,
            Ok(capacity) => (WHOLE << DIGITS).div_ceil(capacity),
        });
        Self { factors }
    }

    /// A twelfth of this and of a sum over all resources is the mean over those that there are.
    pub(super) fn weight(&self) -> u8 {
        match self.factors.iter().filter(|factor| **factor != 0).count() {
            0 | 1 => 12,
            2 => 6,
            3 => 4,
            _ => 3,
        }
    }

    /// How much of each resource is left, in permille; 0 where there is none of it.
    #[inline]
    fn left(&self, left: Amounts) -> [u64; 4] {
        // What is left is not more than the capacity, so the product fits.
        std::array::from_fn(|i| (left[i].cast_unsigned().wrapping_mul(self.factors[i]) >> DIGITS).min(WHOLE))
    }
}

/// A [`Rank`] without its server in one number, because scores are compared for every server. The lowest is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score(pub(super) u64);

impl Score {
    /// Scores a server on which a task with this demand fits, as if the task were placed on it.
    #[inline]
    pub(super) fn of(
        row: &ServerRow,
        emulated: bool,
        (demand, not_asked): (&Amounts, &[u64; 4]),
        strategy: PoolStrategy,
    ) -> Self {
        let left = row.scale.left(std::array::from_fn(|i| row.free[i].wrapping_sub(demand[i])));
        let scarcest = left.iter().zip(not_asked).fold(WHOLE, |least, (left, not_asked)| least.min(left | not_asked));
        let sum: u64 = left.iter().sum();
        let mean = sum * u64::from(row.weight) / 12;
        let (first, second) = match strategy {
            PoolStrategy::Spread => (WHOLE - scarcest, WHOLE - mean),
            PoolStrategy::Binpack => (mean, WHOLE - scarcest),
        };
        Self(((u64::from(emulated) << PERMILLE) | first) << PERMILLE | second)
    }

    pub(super) fn rank(self, server: ServerId) -> Rank {
        let digits = |shift: u32| u32::try_from((self.0 >> shift) & ((1 << PERMILLE) - 1)).unwrap_or_default();
        Rank {
            emulated: u8::from(self.0 >> (2 * PERMILLE) != 0),
            first_permille: digits(PERMILLE),
            second_permille: digits(0),
            server,
        }
    }
}

/// The binary digits that a slot takes in a [`Standing`].
const SLOT: u32 = 32;

/// A score and the slot of the server that has it, in one number. The lowest is best, as of ranks: slots are in the
/// order of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing(u64);

impl Standing {
    pub(super) fn of(score: Score, slot: u32) -> Self {
        Self(score.0 << SLOT | u64::from(slot))
    }

    pub(super) fn slot(self) -> usize {
        usize::try_from(self.0 & ((1 << SLOT) - 1)).unwrap_or(usize::MAX)
    }

    pub(super) fn rank(self, server: ServerId) -> Rank {
        Score(self.0 >> SLOT).rank(server)
    }
}

#[cfg(test)]
#[path = "rank_tests.rs"]
mod tests;
