//! Resources as an array, so that a rule is written once for all four.

use crate::units::Resources;

/// One of the four resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// In millicores.
    Cpu,
    /// In MiB.
    Memory,
    /// In MiB.
    Storage,
    /// Whole.
    Gpu,
}

impl Resource {
    /// All of them, in the order of [`Amounts`].
    pub(super) const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Storage, Self::Gpu];

    /// This much of it, in words: cores, or GiB with at most four decimals.
    pub(super) fn told(self, amount: i64) -> String {
        let number = self.number(amount);
        match self {
            Self::Cpu if amount == 1000 => format!("{number} core"),
            Self::Cpu => format!("{number} cores"),
            Self::Memory => format!("{number} GiB of memory"),
            Self::Storage => format!("{number} GiB of storage"),
            Self::Gpu if amount == 1 => format!("{number} GPU"),
            Self::Gpu => format!("{number} GPUs"),
        }
    }

    /// The number alone.
    pub(super) fn number(self, amount: i64) -> String {
        match self {
            Self::Cpu => decimal(amount.into(), 3),
            // One MiB is 0.00098 GiB: four decimals tell any two amounts apart, three would not.
            Self::Memory | Self::Storage => decimal((i128::from(amount) * 10_000 + 512).div_euclid(1024), 4),
            Self::Gpu => amount.to_string(),
        }
    }
}

/// Formats a number that was multiplied by ten to the power of `decimals`, without needless zeros.
fn decimal(scaled: i128, decimals: u8) -> String {
    let scale = 10_u128.pow(decimals.into());
    let (whole, part) = (scaled.unsigned_abs() / scale, scaled.unsigned_abs() % scale);
    let sign = if scaled < 0 { "-" } else { "" };
    if part == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{part:0width$}", width = usize::from(decimals));
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

/// An amount of each resource, in the order of [`Resource::ALL`].
pub(super) type Amounts = [i64; 4];

pub(super) fn amounts(resources: Resources) -> Amounts {
    [resources.cpu_millis, resources.memory_mib, resources.storage_mib, resources.gpus]
}

pub(super) fn resources([cpu_millis, memory_mib, storage_mib, gpus]: Amounts) -> Resources {
    Resources { cpu_millis, memory_mib, storage_mib, gpus }
}

pub(super) fn plus(a: Amounts, b: Amounts) -> Amounts {
    std::array::from_fn(|i| a[i].saturating_add(b[i]))
}

pub(super) fn minus(a: Amounts, b: Amounts) -> Amounts {
    std::array::from_fn(|i| a[i].saturating_sub(b[i]))
}

/// Whether there is no more of anything in `demand` than in `room`.
pub(super) fn fits(demand: &Amounts, room: &Amounts) -> bool {
    demand.iter().zip(room).all(|(demand, room)| demand <= room)
}

/// Whether there is more of anything in `new`.
pub(super) fn exceeds(new: &Amounts, old: &Amounts) -> bool {
    new.iter().zip(old).any(|(new, old)| new > old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_without_needless_digits() {
        let check = |resource: Resource, amount: i64, expected: &str| assert_eq!(resource.told(amount), expected);
        check(Resource::Cpu, 4000, "4 cores");
        check(Resource::Cpu, 1000, "1 core");
        check(Resource::Cpu, 1670, "1.67 cores");
        check(Resource::Cpu, 1, "0.001 cores");
        check(Resource::Cpu, 0, "0 cores");
        check(Resource::Cpu, -500, "-0.5 cores");
        check(Resource::Memory, 2560, "2.5 GiB of memory");
        check(Resource::Memory, 1, "0.001 GiB of memory");
        check(Resource::Storage, 1_048_577, "1024.001 GiB of storage");
        check(Resource::Gpu, 1, "1 GPU");
        check(Resource::Gpu, 8, "8 GPUs");
    }

    proptest::proptest! {
        #[test]
        fn different_amounts_are_told_differently(mib in 0_i64..1 << 40) {
            proptest::prop_assert_ne!(Resource::Memory.number(mib), Resource::Memory.number(mib + 1));
        }

        #[test]
        fn resources_come_back(all: Amounts) {
            proptest::prop_assert_eq!(amounts(resources(all)), all);
        }
    }
}
