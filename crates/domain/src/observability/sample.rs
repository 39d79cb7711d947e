use super::metric::Metric;
use crate::clock::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};

/// What was measured at one time: a number, or nothing, for each metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Readings([Option<f64>; Metric::COUNT]);

impl Default for Readings {
    fn default() -> Self {
        Self([None; Metric::COUNT])
    }
}

impl Readings {
    /// What was measured of a metric.
    #[must_use]
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(index(metric)).copied().flatten()
    }

    /// Sets it.
    pub fn set(&mut self, metric: Metric, value: Option<f64>) {
        if let Some(place) = self.0.get_mut(index(metric)) {
            *place = value;
        }
    }

    /// The same with one more.
    #[must_use]
    pub fn with(mut self, metric: Metric, value: f64) -> Self {
        self.set(metric, Some(value));
        self
    }

    /// All that was measured.
    pub fn iter(&self) -> impl Iterator<Item = (Metric, f64)> {
        Metric::ALL.iter().zip(&self.0).filter_map(|(metric, value)| value.map(|value| (*metric, value)))
    }

    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// [`Metric::ALL`] is in the order of the declaration.
fn index(metric: Metric) -> usize {
    Metric::ALL.binary_search(&metric).unwrap_or(usize::MAX)
}

/// What was measured of a server at one time.
///
/// As JSON: `recorded_at` and a member for each metric that was measured. Members that are not known are ignored when it
/// is read, because agents may be newer than the server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When: to the microsecond.
    pub at: Timestamp,
    /// What.
    pub readings: Readings,
}

const AT: &str = "recorded_at";

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(AT, &self.at)?;
        for (metric, value) in self.readings.iter() {
            map.serialize_entry(metric.as_str(), &value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Sample {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Sample;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a sample")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sample, A::Error> {
                let (mut at, mut readings) = (None, Readings::default());
                while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    match Metric::parse(&name) {
                        Some(metric) => readings.set(metric, map.next_value()?),
                        None if name == AT => at = Some(map.next_value()?),
                        None => _ = map.next_value::<serde::de::IgnoredAny>()?,
                    }
                }
                let at = at.ok_or_else(|| serde::de::Error::missing_field(AT))?;
                Ok(Sample { at, readings })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::START;
    use serde_json::json;

    #[test]
    fn it_is_told_by_the_names_of_its_metrics() {
        let readings = Readings::default().with(Metric::CpuUsage, 12.5).with(Metric::Temperature, -5.5);
        let sample = Sample { at: START, readings };
        let told = json!({ "recorded_at": "1970-01-01T00:00:00Z", "cpu_usage": 12.5, "temperature": -5.5 });
        assert_eq!(serde_json::to_value(sample).unwrap(), told);
        assert_eq!(serde_json::from_value::<Sample>(told).unwrap(), sample);
    }

    #[test]
    fn what_a_newer_agent_tells_besides_is_ignored() {
        let told = json!({ "recorded_at": "1970-01-01T00:00:00Z", "fan_speed": [1], "cpu_usage": null });
        assert_eq!(
            serde_json::from_value::<Sample>(told).unwrap(),
            Sample { at: START, readings: Readings::default() }
        );
        assert!(serde_json::from_value::<Sample>(json!({ "cpu_usage": 1 })).is_err());
    }

    #[test]
    fn every_metric_has_its_place() {
        for metric in Metric::ALL {
            let readings = Readings::default().with(*metric, 1.0);
            assert_eq!(readings.iter().collect::<Vec<_>>(), [(*metric, 1.0)]);
            assert_eq!(readings.get(*metric), Some(1.0));
        }
    }
}
