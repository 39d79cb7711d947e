//! `prometheus.WriteRequest` as far as it is read: series, labels and samples. What else is in it is skipped.
//!
//! Series are read one by one, each out of a bounded piece: a label takes two bytes on the wire and many more in memory.

use crate::ApiError;
use domain::{
    FieldError,
    observability::remote::{Point, Series},
};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

/// The field that series are in.
const SERIES: u32 = 1;
/// The most bytes of a series.
const LONGEST_SERIES: usize = 1024 * 1024;
/// The most of each in one request.
const MOST_SERIES: usize = 50_000;
const MOST_LABELS: usize = 1_000_000;
const MOST_SAMPLES: usize = 500_000;

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// The series of a request.
pub(super) fn read(mut bytes: &[u8]) -> Result<Vec<Series>, ApiError> {
    let mut all = Vec::new();
    let (mut labels, mut samples) = (0, 0);
    while let Some(piece) = next_series(&mut bytes)? {
        if piece.len() > LONGEST_SERIES {
            return Err(too_much("bytes of one series", LONGEST_SERIES));
        }
        let series = TimeSeries::decode(piece).map_err(|error| malformed(&error))?;
        labels += series.labels.len();
        samples += series.samples.len();
        for (count, most, of) in [
            (all.len() + 1, MOST_SERIES, "series"),
            (labels, MOST_LABELS, "labels"),
            (samples, MOST_SAMPLES, "samples"),
        ] {
            if count > most {
                return Err(too_much(of, most));
            }
        }
        all.push(Series {
            labels: series.labels.into_iter().map(|label| (label.name, label.value)).collect(),
            points: series.samples.into_iter().map(|sample| Point::new(sample.timestamp, sample.value)).collect(),
        });
    }
    Ok(all)
}

/// The bytes of the next series; `None` if no more follow.
fn next_series<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, ApiError> {
    let cut = || FieldError::new("", "the body is not a prometheus.WriteRequest: a series is cut off");
    while !bytes.is_empty() {
        let (field, kind) = decode_key(bytes).map_err(|error| malformed(&error))?;
        if (field, kind) == (SERIES, WireType::LengthDelimited) {
            let length = decode_varint(bytes).map_err(|error| malformed(&error))?;
            let piece = usize::try_from(length).ok().and_then(|length| bytes.split_off(..length));
            return Ok(Some(piece.ok_or_else(cut)?));
        }
        skip_field(kind, field, bytes, DecodeContext::default()).map_err(|error| malformed(&error))?;
    }
    Ok(None)
}

fn malformed(error: &DecodeError) -> ApiError {
    FieldError::new("", format!("the body is not a prometheus.WriteRequest: {error}")).into()
}

fn too_much(of: &str, most: usize) -> ApiError {
    ApiError::TooMuch { reason: format!("a request may have at most {most} {of}: send smaller ones") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        series: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        metadata: Vec<Label>,
    }

    fn labels(count: usize) -> Vec<Label> {
        vec![Label::default(); count]
    }

    #[test]
    fn series_are_read_and_all_else_is_skipped() {
        let label = Label { name: "__name__".to_owned(), value: "up".to_owned() };
        let one = TimeSeries { labels: vec![label.clone()], samples: vec![Sample { value: 1.5, timestamp: 7 }] };
        let request = WriteRequest { series: vec![one, TimeSeries::default()], metadata: vec![label] };
        let expected = [Series::new([("__name__", "up")], vec![Point::new(7, 1.5)]), Series::default()];
        assert_eq!(read(&request.encode_to_vec()).unwrap(), expected);
        assert_eq!(read(&[]).unwrap(), []);
    }

    #[test]
    fn what_is_broken_is_malformed() {
        let request =
            WriteRequest { series: vec![TimeSeries { labels: labels(3), samples: Vec::new() }], metadata: vec![] };
        let good = request.encode_to_vec();
        for broken in [
            &good[..good.len() - 1],
            &[0x0a, 0xff][..],
            &[0x0a, 0x05, 0x00],
            &[0x0a, 0x03, 0x0a, 0x01, 0xff],
            &[0x07],
            b"[]",
        ] {
            let outcome = read(broken);
            assert!(matches!(outcome, Err(ApiError::Domain(domain::Error::Invalid { .. }))), "{broken:?}: {outcome:?}");
        }
    }

    #[test]
    fn what_is_small_on_the_wire_and_large_in_memory_is_bounded() {
        let many = |series: Vec<TimeSeries>| read(&WriteRequest { series, metadata: vec![] }.encode_to_vec());
        let of = |labels, samples| TimeSeries { labels, samples };
        for (case, series) in [
            ("series", vec![TimeSeries::default(); MOST_SERIES + 1]),
            ("labels", vec![of(labels(500_000), vec![]); 3]),
            ("samples", vec![of(vec![], vec![Sample::default(); 500_000]), of(vec![], vec![Sample::default()])]),
            ("bytes of one series", vec![of(labels(600_000), vec![])]),
        ] {
            let outcome = many(series);
            let Err(ApiError::TooMuch { reason }) = outcome else { panic!("{case}: {outcome:?}") };
            assert!(reason.contains(case), "{case}: {reason}");
        }
    }
}
