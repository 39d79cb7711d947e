//! How samples stand in columns of bytes.
//!
//! A row's readings are a metric's number and its value, as often as there are metrics. A day's times and values are
//! compressed by `pco`, a codec for columns of numbers. What was counted of an hour takes a few dozen bytes: numbers of
//! a few decimals, as measured values are, are written as whole ones.

use crate::{failure::Failure, values::corrupt};
use domain::observability::{Hour, Metric, Readings, Sketch};
use pco::{ChunkConfig, DeltaSpec, data_types::Number, standalone};

/// Microseconds of a day.
pub(super) const DAY_US: i64 = 86_400_000_000;
const HOUR_US: i64 = 3_600_000_000;

/// The day of a time, counted from 1970.
pub(super) fn day_of(at_us: i64) -> i64 {
    at_us.div_euclid(DAY_US)
}

pub(super) fn write_readings(readings: &Readings) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    for (metric, value) in readings.iter() {
        bytes.extend(u8::try_from(metric.code()));
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

/// Adds those of `more` whose metrics are not there yet; how many they are. What a newer version measured stays as it is.
pub(super) fn add_readings(bytes: &mut Vec<u8>, more: &[u8]) -> usize {
    let mut added = 0;
    for entry in more.as_chunks::<9>().0 {
        let (there, _) = bytes.as_chunks::<9>();
        if there.iter().all(|known| known.first() != entry.first()) {
            bytes.extend(entry);
            added += 1;
        }
    }
    added
}

pub(super) fn read_readings(bytes: &[u8]) -> Result<Readings, Failure> {
    let (entries, rest) = bytes.as_chunks::<9>();
    if !rest.is_empty() {
        return Err(damaged("readings of a sample"));
    }
    let mut readings = Readings::default();
    for [code, value @ ..] in entries {
        // What a newer version measured is not shown, and stays.
        if let Some(metric) = Metric::by_code(i32::from(*code)) {
            readings.set(metric, Some(f64::from_le_bytes(*value)));
        }
    }
    Ok(readings)
}

/// One value of them.
pub(super) fn read_reading(bytes: &[u8], metric: Metric) -> Option<f64> {
    let (entries, _) = bytes.as_chunks::<9>();
    let found = entries.iter().find(|[code, ..]| i32::from(*code) == metric.code());
    found.map(|[_, value @ ..]| f64::from_le_bytes(*value))
}

pub(super) fn write_times(times: &[i64]) -> Result<Vec<u8>, Failure> {
    compress(times)
}

pub(super) fn read_times(bytes: &[u8]) -> Result<Vec<i64>, Failure> {
    decompress(bytes)
}

/// Set in a column's first byte if not all samples of the day have a value: then the places of those that have come first.
/// The rest of that byte tells how values are written: 0 as they are, and otherwise one more than the number of decimals,
/// of which they are whole multiples. Such whole numbers take a fifth less room than what the codec makes of fractions.
const SPARSE: u8 = 0x80;

/// Writes the values that a day's samples have, in their order.
pub(super) fn write_values(values: &[Option<f64>]) -> Result<Vec<u8>, Failure> {
    let present: Vec<f64> = values.iter().copied().flatten().collect();
    let (form, written) = match in_decimals(&present) {
        Some((decimals, whole)) => (decimals + 1, compress_measured(&whole)?),
        None => (0, compress_measured(&present)?),
    };
    if present.len() == values.len() {
        return Ok([[form].as_slice(), &written].concat());
    }
    let places = (0_u32..).zip(values).filter_map(|(place, value)| value.map(|_| place));
    let places = compress(&places.collect::<Vec<_>>())?;
    let length = u32::try_from(places.len()).map_err(|error| corrupt(error.to_string()))?;
    Ok([[form | SPARSE].as_slice(), &length.to_le_bytes(), &places, &written].concat())
}

/// The values as whole multiples of the least number of decimals of which all are exact.
fn in_decimals(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    (0..=MOST_DECIMALS).find_map(|decimals| {
        let whole: Option<Vec<i64>> = values.iter().map(|value| multiple(*value, decimals)).collect();
        Some((decimals, whole?))
    })
}

/// The values of a day's samples, and the places of those that have one; `None` if all have.
pub(super) fn read_values(bytes: &[u8]) -> Result<(Vec<f64>, Option<Vec<u32>>), Failure> {
    let (&form, rest) = bytes.split_first().ok_or_else(|| damaged("a column"))?;
    let (places, values) = if form & SPARSE == 0 {
        (None, rest)
    } else {
        let (length, rest) = rest.split_first_chunk().ok_or_else(|| damaged("a column"))?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|error| corrupt(error.to_string()))?;
        let (places, values) = rest.split_at_checked(length).ok_or_else(|| damaged("a column"))?;
        (Some(decompress(places)?), values)
    };
    let values = match form & !SPARSE {
        0 => decompress(values)?,
        form if form <= MOST_DECIMALS + 1 => {
            let scale = scale(form - 1);
            decompress::<i64>(values)?.into_iter().map(|whole| fraction(whole, scale)).collect()
        }
        _ => return Err(damaged("a column")),
    };
    Ok((values, places))
}

fn compress<T: Number>(numbers: &[T]) -> Result<Vec<u8>, Failure> {
    standalone::simple_compress(numbers, &ChunkConfig::default()).map_err(|error| corrupt(error.to_string()))
}

/// Compresses values as they are, and as their differences, and takes what is smaller: what wanders with some noise is
/// smaller by its differences, which the codec itself does not find out from so few.
fn compress_measured<T: Number>(numbers: &[T]) -> Result<Vec<u8>, Failure> {
    let by = |delta| {
        let config = ChunkConfig::default().with_delta_spec(delta);
        standalone::simple_compress(numbers, &config).map_err(|error| corrupt(error.to_string()))
    };
    let (plain, differences) = (by(DeltaSpec::NoOp)?, by(DeltaSpec::TryConsecutive(1))?);
    Ok(if differences.len() < plain.len() { differences } else { plain })
}

fn decompress<T: Number>(bytes: &[u8]) -> Result<Vec<T>, Failure> {
    standalone::simple_decompress(bytes).map_err(|error| corrupt(format!("a column of samples: {error}")))
}

fn damaged(what: &str) -> Failure {
    corrupt(format!("{what} cannot be read"))
}

/// Writes the hours of one day: what is a number each, and then how many values are in each bin, hour after hour. Those
/// are small numbers, and many, so that they are compressed together.
pub(super) fn write_hours(hours: &[Hour]) -> Result<Vec<u8>, Failure> {
    let mut head = Bytes(Vec::with_capacity(hours.len() * 16));
    let mut counts: Vec<u32> = Vec::new();
    for hour in hours {
        head.0.extend(u8::try_from(hour.start_us.rem_euclid(DAY_US) / HOUR_US));
        head.unsigned(hour.minutes.into());
        head.number(hour.min);
        head.number(hour.max);
        // A sum has the faults of its additions in its last digits, which nobody needs.
        head.number(rounded(hour.sum));
        let first = hour.sketch.bins().next().map_or(0, |(key, _)| key);
        let before = counts.len();
        for (key, count) in hour.sketch.bins() {
            let place = before + usize::try_from(key - first).map_err(|error| corrupt(error.to_string()))?;
            counts.resize(place, 0);
            counts.push(u32::try_from(count).map_err(|error| corrupt(error.to_string()))?);
        }
        head.signed(first.into());
        head.unsigned(u64::try_from(counts.len() - before).unwrap_or_default());
    }
    let mut out = Bytes(Vec::with_capacity(head.0.len() + 200));
    out.unsigned(u64::try_from(head.0.len()).unwrap_or_default());
    Ok([out.0, head.0, compress(&counts)?].concat())
}

/// Reads the hours of a day.
pub(super) fn read_hours(bytes: &[u8], day: i64) -> Result<Vec<Hour>, Failure> {
    let refused = || damaged("the hours of a day");
    let mut rest = bytes;
    let length = unsigned(&mut rest).and_then(|length| usize::try_from(length).ok()).ok_or_else(refused)?;
    let (mut head, counts) = rest.split_at_checked(length).ok_or_else(refused)?;
    let counts: Vec<u32> = decompress(counts)?;
    let mut counts = counts.into_iter();
    let mut hours = Vec::with_capacity(24);
    while !head.is_empty() {
        hours.push(read_hour(&mut head, &mut counts, day).ok_or_else(refused)?);
    }
    Ok(hours)
}

fn read_hour(head: &mut &[u8], counts: &mut impl Iterator<Item = u32>, day: i64) -> Option<Hour> {
    let start_us = day * DAY_US + i64::from(*head.split_off_first()?) * HOUR_US;
    let minutes = u32::try_from(unsigned(head)?).ok()?;
    let (min, max, sum) = (number(head)?, number(head)?, number(head)?);
    let first = i32::try_from(signed(head)?).ok()?;
    let mut sketch = Sketch::default();
    for place in 0..unsigned(head)? {
        sketch.add_bin(first.checked_add(i32::try_from(place).ok()?)?, counts.next()?.into());
    }
    Some(Hour { start_us, minutes, min, max, sum, sketch })
}

struct Bytes(Vec<u8>);

/// So many decimals are looked for.
const MOST_DECIMALS: u8 = 4;
/// Instead of a number of decimals: the value follows as it is.
const RAW: u8 = 255;
/// Whole numbers up to here are exact.
const LARGEST: f64 = 9e15;

impl Bytes {
    /// A whole number in as many bytes as it needs, seven bits in each ("LEB128").
    fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.extend(u8::try_from(value & 0x7f).map(|low| low | 0x80));
            value >>= 7;
        }
        self.0.extend(u8::try_from(value));
    }

    /// The same for numbers that may be negative, those near nothing in few bytes.
    fn signed(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn number(&mut self, value: f64) {
        for decimals in 0..=MOST_DECIMALS {
            if let Some(whole) = multiple(value, decimals) {
                self.0.push(decimals);
                self.signed(whole);
                return;
            }
        }
        self.0.push(RAW);
        self.0.extend(value.to_le_bytes());
    }
}

fn scale(decimals: u8) -> f64 {
    10_f64.powi(decimals.into())
}

/// The whole number of which this many decimals make exactly the value, to the bit.
fn multiple(value: f64, decimals: u8) -> Option<i64> {
    let scale = scale(decimals);
    let scaled = (value * scale).round();
    if scaled.abs() >= LARGEST {
        return None;
    }
    let whole = whole(scaled);
    (fraction(whole, scale).to_bits() == value.to_bits()).then_some(whole)
}

fn fraction(whole: i64, scale: f64) -> f64 {
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "what was written is below 2^53")]
    let whole = whole as f64;
    whole / scale
}

/// To a ten-thousandth, where that is as good as exact.
fn rounded(value: f64) -> f64 {
    let scaled = (value * 1e4).round();
    if scaled.abs() < LARGEST && (scaled / 1e4 - value).abs() <= value.abs() * 1e-9 { scaled / 1e4 } else { value }
}

fn whole(value: f64) -> i64 {
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "it is whole, and below 2^53")]
    let whole = value as i64;
    whole
}

fn unsigned(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn signed(rest: &mut &[u8]) -> Option<i64> {
    let value = unsigned(rest)?;
    Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}

fn number(rest: &mut &[u8]) -> Option<f64> {
    match *rest.split_off_first()? {
        RAW => {
            let (value, after) = rest.split_first_chunk()?;
            *rest = after;
            Some(f64::from_le_bytes(*value))
        }
        decimals => Some(fraction(signed(rest)?, scale(decimals))),
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
