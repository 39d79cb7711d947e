use super::*;
use domain::observability::hours_of;
use proptest::prelude::*;

#[test]
fn readings_come_back() {
    let readings = Readings::default().with(Metric::CpuUsage, 12.5).with(Metric::MemoryUsagePeak, -0.0);
    let bytes = write_readings(&readings);
    assert_eq!(read_readings(&bytes).unwrap(), readings);
    assert_eq!(read_reading(&bytes, Metric::CpuUsage), Some(12.5));
    assert_eq!(read_reading(&bytes, Metric::Temperature), None);
}

#[test]
fn readings_of_a_newer_version_are_passed_over() {
    let known = write_readings(&Readings::default().with(Metric::CpuUsage, 2.0));
    let newer = [[200].as_slice(), &1.0_f64.to_le_bytes(), &known];
    assert_eq!(read_readings(&newer.concat()).unwrap(), Readings::default().with(Metric::CpuUsage, 2.0));
}

#[test]
fn what_is_damaged_is_refused() {
    assert!(read_readings(&[1, 2, 3]).is_err());
    assert!(read_times(b"nonsense").is_err());
    for bytes in [&[][..], &[7], &[SPARSE], &[SPARSE, 255, 255, 255, 255, 0], &[0, 1, 2], &[3, 1, 2]] {
        assert!(read_values(bytes).is_err(), "{bytes:?}");
    }
    assert!(read_hours(&[0], 0).is_err());
    assert!(read_hours(&[0x80; 40], 0).is_err());
}

#[test]
fn a_day_of_what_is_measured_takes_little() {
    let times: Vec<i64> = (0..1440).map(|minute| minute * 60_000_000).collect();
    let values: Vec<f64> = (0..1440).map(|n| f64::from(3000 + (n * 7919) % 1000) / 100.0).collect();
    let present: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
    let [times_size, values_size, hours_size] = [
        write_times(&times).unwrap().len(),
        write_values(&present).unwrap().len(),
        write_hours(&hours_of(&times, &values)).unwrap().len(),
    ];
    // Evenly spread over 1,000 steps, a value has 10 bits of news, and a regular time none.
    assert!(times_size < 100 && values_size < 1950 && hours_size < 700, "{times_size} {values_size} {hours_size}");
}

proptest! {
    #[test]
    fn times_and_values_come_back(seed in prop::collection::vec((0_i64..DAY_US, prop::option::of(-1e9..1e9_f64)), 0..300), decimals in 0_i32..8) {
        let times: Vec<i64> = seed.iter().map(|(time, _)| *time).collect();
        prop_assert_eq!(read_times(&write_times(&times).unwrap()).unwrap(), times);
        let scale = 10_f64.powi(decimals);
        let round = |value: f64| (value * scale).round() / scale;
        let values: Vec<Option<f64>> = seed.iter().map(|(_, value)| value.map(round)).collect();
        let (found, places) = read_values(&write_values(&values).unwrap()).unwrap();
        let mut back = vec![None; values.len()];
        match places {
            None => back = found.into_iter().map(Some).collect(),
            Some(places) => {
                for (place, value) in places.into_iter().zip(found) {
                    back[usize::try_from(place).unwrap()] = Some(value);
                }
            }
        }
        prop_assert_eq!(back, values);
    }

    #[test]
    fn hours_come_back(values in prop::collection::vec(-1e6..1e6_f64, 1..200), decimals in 0_i32..6, start in 0_i64..DAY_US / 2) {
        let scale = 10_f64.powi(decimals);
        let values: Vec<f64> = values.iter().map(|value| (value * scale).round() / scale).collect();
        let times: Vec<i64> = (0..).map(|n| start + n * 60_000_000).take(values.len()).collect();
        let hours = hours_of(&times, &values);
        let found = read_hours(&write_hours(&hours).unwrap(), 0).unwrap();
        prop_assert_eq!(found.len(), hours.len());
        for (found, hour) in found.iter().zip(&hours) {
            prop_assert!((found.sum - hour.sum).abs() <= hour.sum.abs() * 1e-9);
            let same = Hour { sum: hour.sum, ..found.clone() };
            prop_assert_eq!(same.sketch.bins().collect::<Vec<_>>(), hour.sketch.bins().collect::<Vec<_>>());
            prop_assert_eq!((same.start_us, same.minutes, same.min, same.max), (hour.start_us, hour.minutes, hour.min, hour.max));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = (read_readings(&bytes), read_times(&bytes), read_values(&bytes), read_hours(&bytes, 0));
    }
}
