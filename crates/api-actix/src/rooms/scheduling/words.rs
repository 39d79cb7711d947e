//! The words of the domain in the API document. They are read and shown by the domain's own enums, so that there is one
//! list of each.

use domain::scheduling::{AttemptStatus, Protocol, RestartPolicy, TaskDriver, TaskKind, TaskStatus};
use schemars::{Schema, SchemaGenerator, json_schema};

macro_rules! words {
    ($($name:ident: $type:ty $(, or none: $optional:ident)?;)+) => {$(
        /// One of these words.
        pub(super) fn $name(_: &mut SchemaGenerator) -> Schema {
            let words: Vec<&str> = <$type>::ALL.iter().map(|word| word.as_str()).collect();
            json_schema!({ "type": "string", "enum": words })
        }

        $(/// One of these words, or none.
        pub(super) fn $optional(_: &mut SchemaGenerator) -> Schema {
            let words = <$type>::ALL.iter().map(|word| Some(word.as_str()));
            let words: Vec<Option<&str>> = words.chain([None]).collect();
            json_schema!({ "type": ["string", "null"], "enum": words })
        })?
    )+};
}

words! {
    kind: TaskKind, or none: optional_kind;
    driver: TaskDriver, or none: optional_driver;
    restart: RestartPolicy, or none: optional_restart;
    protocol: Protocol, or none: optional_protocol;
    status: TaskStatus, or none: optional_status;
    attempt_status: AttemptStatus;
}
