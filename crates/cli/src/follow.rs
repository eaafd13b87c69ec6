//! Verbs that follow what happens until they are interrupted: events, a tunnel's connection, its IKE log.

use std::io::{self, Write as _};

use clap::ArgMatches;
use serde_json::Value;
use wicketgate_client::{Event, EventStream};

use crate::{
    arguments::{output, which_one},
    context::Session,
    failed::Failed,
    kind::TUNNEL,
    output::{Form, Output},
    session::text,
    table::cell,
};

pub(crate) async fn events(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let since = matches.get_one::<String>("since").map(String::as_str);
    let output = output(matches);
    let path = path(session).await?;
    changes(session.client.follow(&path, &[], since), |event| match as_table(&output) {
        true => Ok(Some(line_of(event))),
        false => data(&output, &tagged(event)).map(Some),
    })
    .await
}

pub(crate) async fn watch(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let (id, tunnel) = session.resolve(&TUNNEL, which_one(matches)).await?;
    let path = path(session).await?;
    let mut events = session.client.follow(&path, &[], None);
    // Before the state is read, so that each later change is an event.
    events.begin().await?;
    let tunnel = session.client.get(&tunnel, &[]).await?;
    let connection = &tunnel["connection"];
    let (kind, id) = (Value::from("connection"), Value::from(id));
    let why = &connection["lastError"]["message"];
    print(&words(&[&connection["since"], &kind, &id, &connection["state"], why]))?;
    changes(events, |event| Ok((event.data["id"] == id).then(|| line_of(event)))).await
}

/// The events of the Frontdoor.
async fn path(session: &Session) -> Result<String, Failed> {
    Ok(format!("frontdoor/v2/{}/events", session.frontdoor_id().await?))
}

/// Follows events, and prints what `shown` makes of them.
async fn changes(
    mut events: EventStream<'_>,
    shown: impl Fn(&Event) -> Result<Option<String>, Failed>,
) -> Result<(), Failed> {
    loop {
        if let Some(words) = shown(&events.next().await?)? {
            print(&words)?;
        }
    }
}

pub(crate) async fn ike_log(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let (_, path) = session.resolve(&TUNNEL, which_one(matches)).await?;
    let path = format!("{path}/ike-log");
    let since = matches.get_one::<String>("since").map(|since| ("since".to_owned(), since.clone()));
    let mut query: Vec<_> = since.into_iter().collect();
    let output = output(matches);
    let shown = |entry: &Value| match as_table(&output) {
        true => Ok(words(&[&entry["at"], &entry["group"], &entry["message"]])),
        false => data(&output, entry),
    };
    if matches.get_flag("follow") {
        query.push(("follow".to_owned(), "true".to_owned()));
        let mut lines = session.client.follow(&path, &query, None);
        loop {
            print(&shown(&lines.next().await?.data)?)?;
        }
    }
    for entry in session.client.lines(&path, &query).await? {
        print(&shown(&entry)?)?;
    }
    Ok(())
}

fn line_of(event: &Event) -> String {
    let detail = &event.data["statusDetail"];
    let why = [text(detail, "reason"), text(detail, "message")].join(" ");
    let data = &event.data;
    words(&[&data["at"], &event.kind.as_str().into(), &data["id"], &data["status"], &why.trim().into()])
}

/// The event's data with its kind, and its id to go on from.
fn tagged(event: &Event) -> Value {
    let mut data = event.data.clone();
    if data.is_object() {
        data["event"] = event.kind.as_str().into();
        data["eventId"] = event.id.as_str().into();
    }
    data
}

fn as_table(output: &Output) -> bool {
    matches!(output.form, Form::Table { .. }) && output.jq.is_none()
}

/// One line of JSON, or what the jq program makes of it.
fn data(output: &Output, value: &Value) -> Result<String, Failed> {
    if output.jq.is_none() {
        return Ok(value.to_string());
    }
    let mut text = Vec::new();
    output.value(value, &mut text)?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

fn words(values: &[&Value]) -> String {
    values.iter().map(|value| cell(value)).collect::<Vec<_>>().join("\t")
}

/// Each line is there as soon as it happened.
fn print(words: &str) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    writeln!(out, "{words}")?;
    Ok(out.flush()?)
}
