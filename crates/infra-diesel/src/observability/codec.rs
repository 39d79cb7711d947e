//! How samples stand in columns of bytes.
//!
//! A row's readings are a metric's number and its value, as often as there are metrics. A day's times and values are
//! compressed by `pco`, a codec for columns of numbers. What was counted of an hour takes a few dozen bytes: numbers of
//! a few decimals, as measured values are, are written as whole ones.

use crate::{failure::Failure, values::corrupt};
use domain::observability::{Hour, Metric, Readings, Sketch};
use pco::{ChunkConfig, data_types::Number, standalone};

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

/// Every sample of the day has a value, or those have of which the places follow.
const DENSE: u8 = 0;
const SPARSE: u8 = 1;

/// Writes the values that a day's samples have, in their order.
pub(super) fn write_values(values: &[Option<f64>]) -> Result<Vec<u8>, Failure> {
    let present: Vec<f64> = values.iter().copied().flatten().collect();
    if present.len() == values.len() {
        return Ok([[DENSE].as_slice(), &compress(&present)?].concat());
    }
    let places = (0_u32..).zip(values).filter_map(|(place, value)| value.map(|_| place));
    let places = compress(&places.collect::<Vec<_>>())?;
    let length = u32::try_from(places.len()).map_err(|error| corrupt(error.to_string()))?;
    let values = compress(&present)?;
    Ok([[SPARSE].as_slice(), &length.to_le_bytes(), &places, &values].concat())
}

/// The values of a day's samples, and the places of those that have one; `None` if all have.
pub(super) fn read_values(bytes: &[u8]) -> Result<(Vec<f64>, Option<Vec<u32>>), Failure> {
    match bytes.split_first() {
        Some((&DENSE, values)) => Ok((decompress(values)?, None)),
        Some((&SPARSE, rest)) => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(|| damaged("a column"))?;
            let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|error| corrupt(error.to_string()))?;
            let (places, values) = rest.split_at_checked(length).ok_or_else(|| damaged("a column"))?;
            Ok((decompress(values)?, Some(decompress(places)?)))
        }
        _ => Err(damaged("a column")),
    }
}

fn compress<T: Number>(numbers: &[T]) -> Result<Vec<u8>, Failure> {
    standalone::simple_compress(numbers, &ChunkConfig::default()).map_err(|error| corrupt(error.to_string()))
}

fn decompress<T: Number>(bytes: &[u8]) -> Result<Vec<T>, Failure> {
    standalone::simple_decompress(bytes).map_err(|error| corrupt(format!("a column of samples: {error}")))
}

fn damaged(what: &str) -> Failure {
    corrupt(format!("{what} cannot be read"))
}

/// Writes the hours of one day.
pub(super) fn write_hours(hours: &[Hour]) -> Vec<u8> {
    let mut out = Bytes(Vec::with_capacity(hours.len() * 40));
    for hour in hours {
        out.0.extend(u8::try_from(hour.start_us.rem_euclid(DAY_US) / HOUR_US));
        out.unsigned(hour.minutes.into());
        out.number(hour.min);
        out.number(hour.max);
        // A sum has the faults of its additions in its last digits, which nobody needs.
        out.number(rounded(hour.sum));
        let bins: Vec<(i32, u64)> = hour.sketch.bins().collect();
        out.unsigned(u64::try_from(bins.len()).unwrap_or_default());
        let mut before = 0;
        for (key, count) in bins {
            out.signed(i64::from(key - before));
            out.unsigned(count);
            before = key;
        }
    }
    out.0
}

/// Reads the hours of a day.
pub(super) fn read_hours(bytes: &[u8], day: i64) -> Result<Vec<Hour>, Failure> {
    let mut rest = bytes;
    let mut hours = Vec::with_capacity(24);
    while !rest.is_empty() {
        hours.push(read_hour(&mut rest, day).ok_or_else(|| damaged("the hours of a day"))?);
    }
    Ok(hours)
}

fn read_hour(rest: &mut &[u8], day: i64) -> Option<Hour> {
    let start_us = day * DAY_US + i64::from(*rest.split_off_first()?) * HOUR_US;
    let minutes = u32::try_from(unsigned(rest)?).ok()?;
    let (min, max, sum) = (number(rest)?, number(rest)?, number(rest)?);
    let mut sketch = Sketch::default();
    let mut key = 0_i32;
    for _ in 0..unsigned(rest)? {
        key = key.checked_add(i32::try_from(signed(rest)?).ok()?)?;
        sketch.add_bin(key, unsigned(rest)?);
    }
    Some(Hour { start_us, minutes, min, max, sum, sketch })
}

struct Bytes(Vec<u8>);

/// So many decimals are looked for.
const MOST_DECIMALS: i32 = 4;
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
            let scale = 10_f64.powi(decimals);
            let scaled = (value * scale).round();
            if scaled.abs() < LARGEST && (scaled / scale).to_bits() == value.to_bits() {
                self.0.extend(u8::try_from(decimals));
                self.signed(whole(scaled));
                return;
            }
        }
        self.0.push(RAW);
        self.0.extend(value.to_le_bytes());
    }
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
        decimals => {
            #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "what was written is below 2^53")]
            let scaled = signed(rest)? as f64;
            Some(scaled / 10_f64.powi(i32::from(decimals)))
        }
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
