//! Verbs that follow what happens until they are interrupted: events, a tunnel's connection, its IKE log.

use std::io::{self, Write as _};

use clap::ArgMatches;
use serde_json::Value;
use wicketgate_client::Event;
use wicketgate_system::terminal::printable_json;

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
    let mut events = session.client.follow(&path, &[], since);
    loop {
        let event = events.next().await?;
        print(&match as_table(&output) {
            true => line_of(&event),
            false => data(&output, &tagged(&event))?,
        })?;
    }
}

pub(crate) async fn watch(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let (id, tunnel) = session.resolve(&TUNNEL, which_one(matches)).await?;
    let path = path(session).await?;
    watched(session, (&id, &tunnel), &path, print).await
}

/// Shows the state of a tunnel, and each change of it.
async fn watched(
    session: &Session,
    (id, tunnel): (&str, &str),
    path: &str,
    mut show: impl FnMut(&str) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let mut events = session.client.follow(path, &[], None);
    // Before the state is read, so that each later change is an event.
    events.begin().await?;
    loop {
        show(&state(&session.client.get(tunnel, &[]).await?))?;
        // After it, events are missing.
        let mut event = events.next().await?;
        while event.kind != "reset" {
            if event.data["id"] == id {
                show(&line_of(&event))?;
            }
            event = events.next().await?;
        }
    }
}

/// A tunnel's connection, as an event would tell it.
fn state(tunnel: &Value) -> String {
    let connection = &tunnel["connection"];
    let why = &connection["lastError"]["message"];
    words(&[&connection["since"], &"connection".into(), &tunnel["name"], &connection["state"], why])
}

/// The events of the Frontdoor.
async fn path(session: &Session) -> Result<String, Failed> {
    Ok(format!("frontdoor/v2/{}/events", session.frontdoor_id().await?))
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
    // A resource that is no longer kept has no name.
    let what = Some(&data["name"]).filter(|name| name.is_string()).unwrap_or(&data["id"]);
    words(&[&data["at"], &event.kind.as_str().into(), what, &data["status"], &why.trim().into()])
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
        return Ok(printable_json(&value.to_string()));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::sleep,
    };
    use wicketgate_client::ApiClient;

    use super::*;

    const BOUND: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_tunnel_is_read_again_after_a_gap_in_the_events() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let session = Session::new(ApiClient::new(base, None, None).unwrap(), None);
        let serve = async {
            let mut states = ["UP", "DOWN"].into_iter();
            let (mut streams, mut head) = (Vec::new(), String::new());
            loop {
                let mut tcp = listener.accept().await.unwrap().0;
                head.clear();
                while !head.ends_with("\r\n\r\n") {
                    head.push(tcp.read_u8().await.unwrap().into());
                }
                tcp.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await.unwrap();
                if head.starts_with("GET /events ") {
                    let gap = b"id: 1\n\nevent: reset\nid: 9\ndata: {\"type\": \"reset\"}\n\n";
                    tcp.write_all(gap).await.unwrap();
                    streams.push(tcp);
                } else {
                    let tunnel =
                        json!({"name": "lan", "connection": {"state": states.next().unwrap()}}).to_string();
                    tcp.write_all(tunnel.as_bytes()).await.unwrap();
                }
            }
        };
        let mut shown = Vec::new();
        let watch = watched(&session, ("tnl-1", "tunnel"), "events", |line| {
            shown.push(line.to_owned());
            if shown.len() == 2 { Err(Failed::Said) } else { Ok(()) }
        });
        tokio::select! {
            () = serve => {}
            () = sleep(BOUND) => {}
            ended = watch => assert!(matches!(ended, Err(Failed::Said)), "{ended:?}"),
        }
        assert_eq!(shown, ["UP", "DOWN"].map(|state| format!("\tconnection\tlan\t{state}\t")));
    }
}
