//! Acts: requests the server to act on a resource, and says what came of it.

use clap::ArgMatches;
use serde_json::{Value, json};
use wicketgate_client::Method;

use crate::{
    acts::{Act, Answer},
    arguments::{output, patience, which_one},
    context::Session,
    failed::Failed,
    kind::{EXECUTION, Kind},
    say::say_of,
    schema,
    session::text,
    verbs::{shown, written},
};

pub(crate) async fn run(
    session: &Session,
    kind: &Kind,
    act: &Act,
    matches: &ArgMatches,
) -> Result<(), Failed> {
    let mut body = match act.schema {
        Some(schema) => schema::body(kind, schema, matches)?,
        None => json!({}),
    };
    let missing = act.schema.map(|schema| schema::missing(schema, "", &body)).unwrap_or_default();
    if !missing.is_empty() {
        let command = format!("{} {}", kind.name, act.verb);
        return Err(Failed::usage(format!(
            "{command} needs {}: see `wicketgate {command} --help`",
            missing.join(", ")
        )));
    }
    if let Some((property, value)) = act.sets {
        body[property] = value.into();
    }
    let (_, resource) = session.resolve(kind, which_one(matches)).await?;
    let answer = match act.path {
        "" => session.client.write(Method::PATCH, &resource, Some(&body), None).await?,
        path => session.client.write(Method::POST, &format!("{resource}/{path}"), Some(&body), None).await?,
    };
    say_of(act.says, &answer);
    match act.answer {
        Answer::Resource => written(session, kind, &resource, answer, matches).await,
        Answer::Execution => ended(session, answer, matches).await,
        Answer::Outcome => output(matches).one(kind, &answer),
    }
}

/// Waits for the end of an execution if that was asked for, and prints it.
async fn ended(session: &Session, execution: Value, matches: &ArgMatches) -> Result<(), Failed> {
    let patience = patience(matches);
    let path = format!("{}/{}", session.list_path(&EXECUTION).await?, text(&execution, "id"));
    let execution = match patience.waits {
        true => session.settled(&EXECUTION, &path, patience).await?.unwrap_or(execution),
        false => execution,
    };
    shown(&EXECUTION, &execution, &output(matches))
}
