//! Resources in whole units, and their exact conversion from and to the decimal numbers of the API.
//!
//! Inside: CPU in millicores, memory and storage in MiB, GPUs whole. Outside: cores and GiB. A decimal such as
//! `1.67` is converted by its digits, never by binary arithmetic, so that ten times 0.1 is 1.

use serde::{Deserialize, Serialize};

/// Millicores in a core.
const MILLIS_PER_CORE: u128 = 1000;
/// MiB in a GiB.
const MIB_PER_GIB: u128 = 1024;

/// An amount of each resource: a capacity, a demand, or a sum of either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// CPU in millicores.
    pub cpu_millis: i64,
    /// Memory in MiB.
    pub memory_mib: i64,
    /// Storage in MiB.
    pub storage_mib: i64,
    /// Whole GPUs.
    pub gpus: i64,
}

impl Resources {
    /// What is left of `self` once `taken` is taken; negative where more is taken than there is.
    #[must_use]
    pub fn minus(self, taken: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis - taken.cpu_millis,
            memory_mib: self.memory_mib - taken.memory_mib,
            storage_mib: self.storage_mib - taken.storage_mib,
            gpus: self.gpus - taken.gpus,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis + more.cpu_millis,
            memory_mib: self.memory_mib + more.memory_mib,
            storage_mib: self.storage_mib + more.storage_mib,
            gpus: self.gpus + more.gpus,
        }
    }

    /// Whether there is no more of anything than in `room`.
    #[must_use]
    pub fn fits_in(self, room: Self) -> bool {
        self.cpu_millis <= room.cpu_millis
            && self.memory_mib <= room.memory_mib
            && self.storage_mib <= room.storage_mib
            && self.gpus <= room.gpus
    }

    /// The same with nothing where there would be less than that.
    #[must_use]
    pub fn at_least_nothing(self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(0),
            memory_mib: self.memory_mib.max(0),
            storage_mib: self.storage_mib.max(0),
            gpus: self.gpus.max(0),
        }
    }

    /// Whether nothing of anything is held.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

/// Which way a decimal that is finer than the unit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// For capacity: never promise more than there is.
    Down,
    /// For demand: never take less than was asked for.
    Up,
}

/// Cores to millicores.
///
/// # Errors
/// A sentence, if `cores` is negative, not finite, or above a million.
pub fn cpu_millis(cores: f64, rounding: Rounding) -> Result<i64, String> {
    scaled(cores, MILLIS_PER_CORE, 1_000_000.0, rounding)
}

/// GiB to MiB.
///
/// # Errors
/// A sentence, if `gib` is negative, not finite, or above an exbibyte.
pub fn mib(gib: f64, rounding: Rounding) -> Result<i64, String> {
    scaled(gib, MIB_PER_GIB, 1_073_741_824.0, rounding)
}

/// Millicores to cores.
#[must_use]
pub fn cores(cpu_millis: i64) -> f64 {
    ratio(cpu_millis, 1000.0)
}

/// MiB to GiB.
#[must_use]
pub fn gib(mib: i64) -> f64 {
    ratio(mib, 1024.0)
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "bounded far below 2^53 by what is accepted")]
fn ratio(amount: i64, unit: f64) -> f64 {
    amount as f64 / unit
}

fn scaled(value: f64, factor: u128, most: f64, rounding: Rounding) -> Result<i64, String> {
    if !value.is_finite() || value < 0.0 || value > most {
        return Err(format!("must be a number from 0 to {most}"));
    }
    // `Display` prints the shortest decimal that reads back as the same number: what the client wrote.
    // Of the two zeros, the negative one is no less of an amount.
    let text = value.abs().to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    // 27 digits are far more than a unit of 1/1024 can tell apart, and their product still fits.
    let (kept, rest) = fraction.split_at(fraction.len().min(27));
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let converted = digits(whole).zip(digits(kept)).and_then(|(whole, part)| {
        let scale = 10_u128.pow(u32::try_from(kept.len()).ok()?);
        let numerator = part * factor;
        let inexact = !numerator.is_multiple_of(scale) || rest.bytes().any(|digit| digit != b'0');
        let up = u128::from(rounding == Rounding::Up && inexact);
        i64::try_from(whole * factor + numerator / scale + up).ok()
    });
    converted.ok_or_else(|| format!("must be a number from 0 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cores: f64, down: i64, up: i64) {
        assert_eq!(cpu_millis(cores, Rounding::Down), Ok(down), "{cores} rounded down");
        assert_eq!(cpu_millis(cores, Rounding::Up), Ok(up), "{cores} rounded up");
    }

    #[test]
    fn decimals_convert_by_their_digits() {
        check(1.67, 1670, 1670);
        check(0.1 + 0.2, 300, 301);
        check(0.001, 1, 1);
        check(0.0005, 0, 1);
        check(1e-300, 0, 1);
        check(0.0, 0, 0);
        check(-0.0, 0, 0);
        check(1_000_000.0, 1_000_000_000, 1_000_000_000);
        assert_eq!((0..10).map(|_| cpu_millis(0.1, Rounding::Up).unwrap()).sum::<i64>(), 1000);
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for value in [f64::NAN, f64::INFINITY, -0.001, 1e300] {
            assert!(cpu_millis(value, Rounding::Down).is_err(), "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_millicore_and_mebibyte_comes_back(amount in 0_i64..1_000_000_000) {
            for rounding in [Rounding::Down, Rounding::Up] {
                proptest::prop_assert_eq!(cpu_millis(cores(amount), rounding), Ok(amount));
                proptest::prop_assert_eq!(mib(gib(amount), rounding), Ok(amount));
            }
        }
    }
}
