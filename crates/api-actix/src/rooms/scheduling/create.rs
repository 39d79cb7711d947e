//! A task to be posted: what is to be run, and beside it the token of a plan.

use super::{
    beside,
    body::{TaskBody, optional},
    limits::MAX_TOKEN,
    schemas,
};
use domain::{Error, Result, error::Checks, scheduling::TaskSpec, text};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;

/// A task to be posted, with the token of a plan if it is to be placed as planned.
pub(super) struct TaskCreate {
    task: TaskBody,
    plan_token: Option<String>,
}

const PLAN_TOKEN: &str = "plan_token";

impl TaskCreate {
    /// The domain's words for it.
    pub(super) fn parse(self) -> Result<(TaskSpec, Option<String>)> {
        let spec = self.task.parse();
        match (spec, parse_plan_token(self.plan_token)) {
            (Ok(spec), Ok(token)) => Ok((spec, token)),
            (Err(Error::Invalid { mut errors }), Err(Error::Invalid { errors: more })) => {
                errors.extend(more);
                Err(Error::Invalid { errors })
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}

impl<'de> Deserialize<'de> for TaskCreate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (task, plan_token) = beside::read(deserializer, PLAN_TOKEN)?;
        Ok(Self { task, plan_token })
    }
}

impl JsonSchema for TaskCreate {
    fn schema_name() -> Cow<'static, str> {
        "TaskCreate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = TaskBody::json_schema(generator);
        let mut token = schemas::plan_token(generator);
        token.insert(
            "description".to_owned(),
            "From a dry run of the same task: place it as planned, or refuse it.".into(),
        );
        if let Some(members) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            members.insert(PLAN_TOKEN.to_owned(), token.to_value());
        }
        schema.insert("description".to_owned(), "A task to be posted.".into());
        schema
    }
}

/// Checks the form of a plan token; whether it is one, and not stale, is for the use case to say.
pub(super) fn parse_plan_token(token: Option<String>) -> Result<Option<String>> {
    let mut checks = Checks::default();
    let token = optional(&mut checks, PLAN_TOKEN, token, |token| text::line(token, MAX_TOKEN));
    checks.finish().map(|()| token)
}
