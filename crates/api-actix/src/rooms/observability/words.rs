//! The words of this room, as they stand in the API document.

use domain::observability::{HealthState, Metric};

/// Schemas of the words of these types, for `schema_with`.
macro_rules! words {
    ($($name:ident: $type:ty, $kind:tt;)+) => {$(
        pub(in crate::rooms::observability) fn $name(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
            let words: Vec<&str> = <$type>::ALL.iter().map(|word| word.as_str()).collect();
            schemars::json_schema!({ "type": $kind, "enum": words })
        }
    )+};
}
pub(super) use words;

words! {
    metric: Metric, "string";
    optional_metric: Metric, ["string", "null"];
    health_state: HealthState, "string";
}
