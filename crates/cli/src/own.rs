//! The verbs that only one kind of resource has.

use std::io::{self, Write as _};

use clap::ArgMatches;
use serde_json::{Value, json};
use wicketgate_client::Method;

use crate::{
    arguments::{output, which_one},
    chart,
    context::Session,
    failed::Failed,
    kind::{AGENT, Column, ENVIRONMENT, Kind, SHARE, TUNNEL, column},
    output::Form,
    path_view,
    say::say,
    session::text,
    summary::{UNKNOWN_AGENTS, UNKNOWN_PEERS},
    table::cell,
};

/// A change of a connection, as `tunnel history` lists it.
const CHANGE: Kind = Kind {
    name: "change",
    plural: "changes",
    label: "number",
    columns: &[
        column("TIME", "/at"),
        column("STATE", "/state"),
        column("PEER", "/peer/address"),
        column("REASON", "/lastError/reason"),
        column("WHY", "/lastError/message"),
    ],
    ..AGENT
};

/// Who sends IKE and is no tunnel's peer.
const UNKNOWN_AGENT: Kind = Kind {
    name: "unknown agent",
    plural: "unknown agents",
    label: "id",
    columns: &[
        column("ID", "/id"),
        column("NAME", "/name"),
        column("ADDRESS", "/address"),
        column("ENVIRONMENT", "/environmentId"),
        column("FRONTDOOR", "/frontdoorId"),
        column("LAST SEEN", "/lastSeenAt"),
        Column { or: was_removed, ..column("NOTE", "/note") },
    ],
    ..AGENT
};

fn was_removed(agent: &Value) -> String {
    if agent["removed"] == true { "removed after the backup: do not adopt".to_owned() } else { String::new() }
}

/// A code that no agent has used.
const CODE: Kind = Kind {
    name: "enrolment code",
    plural: "enrolment codes",
    label: "id",
    columns: &[
        column("ID", "/id"),
        column("STATE", "/state"),
        column("ENVIRONMENT", "/environmentId"),
        column("EXPIRES", "/expiresAt"),
        column("BY", "/createdBy"),
    ],
    ..AGENT
};

const UNKNOWN_PEER: Kind = Kind {
    name: "unknown peer",
    plural: "unknown peers",
    label: "address",
    columns: &[
        column("ADDRESS", "/address"),
        column("PORT", "/port"),
        column("PACKETS", "/packets"),
        column("FIRST SEEN", "/firstSeenAt"),
        column("LAST SEEN", "/lastSeenAt"),
        column("LOCATION", "/locationId"),
    ],
    ..AGENT
};

pub(crate) async fn check(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let (_, path) = session.resolve(&SHARE, which_one(matches)).await?;
    let check = session.client.write(Method::POST, &format!("{path}/check"), Some(&json!({})), None).await?;
    let output = output(matches);
    match &output.form {
        Form::Table { .. } if output.jq.is_none() => {
            path_view::draw(&check, &output.screen, &mut io::stdout().lock())?;
            if let Some(page) = path_view::explained(&check, session.client.base()) {
                say(&format!("More about it: {page}"));
            }
        }
        _ => output.one(&SHARE, &check)?,
    }
    if check["ok"] == true { Ok(()) } else { Err(Failed::Said) }
}

pub(crate) async fn metrics(session: &Session, kind: &Kind, matches: &ArgMatches) -> Result<(), Failed> {
    let (_, path) = session.resolve(kind, which_one(matches)).await?;
    let duration = matches.get_one::<String>("duration").cloned().unwrap_or_default();
    let query = [("duration".to_owned(), duration)];
    let metrics = session.client.get(&format!("{path}/metrics"), &query).await?;
    let output = output(matches);
    if output.form != (Form::Table { is_wide: false }) || output.jq.is_some() {
        return output.one(kind, &metrics);
    }
    Ok(chart::all(&metrics, output.screen.width, &mut io::stdout().lock())?)
}

pub(crate) async fn config(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let (_, path) = session.resolve(&TUNNEL, which_one(matches)).await?;
    let format = matches.get_one::<String>("format").cloned().unwrap_or_default();
    let query: &[_] = if format == "json" { &[] } else { &[("format".to_owned(), format)] };
    let text = session.client.text(&format!("{path}/vpn-config"), query).await?;
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        writeln!(out)?;
    }
    say("It contains the pre-shared key: hand it over on a channel that is safe for passwords.");
    Ok(())
}

pub(crate) async fn history(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let (_, path) = session.resolve(&TUNNEL, which_one(matches)).await?;
    let (path, query) = (format!("{path}/connection-history"), [("sort".to_owned(), "number".to_owned())]);
    output(matches).list(&CHANGE, session.client.list(&path, &query, None)).await?;
    Ok(())
}

pub(crate) async fn codes(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let list = format!("{}/enrollments", session.list_path(&AGENT).await?);
    let newest = [("sort".to_owned(), "createdAt,desc".to_owned())];
    if output(matches).list(&CODE, session.client.list(&list, &newest, None)).await? == 0 {
        say("Every enrolment code was used.");
    }
    Ok(())
}

pub(crate) async fn revoke_code(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let id = which_one(matches);
    if !id.strip_prefix("enr-").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(Failed::usage(
            "ID is like enr-0190f3…, as `wicketgate agent codes` has it, and not the code",
        ));
    }
    let path = format!("{}/enrollments/{id}", session.list_path(&AGENT).await?);
    session.client.write(Method::DELETE, &path, None, None).await?;
    say(&format!("Revoked {id}: no agent can enrol with it."));
    Ok(())
}

pub(crate) async fn unknown_peers(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let output = output(matches);
    let count = output.list(&UNKNOWN_PEER, session.client.list(UNKNOWN_PEERS, &[], None)).await?;
    if count == 0 && output.screen.is_terminal {
        say("Only peers of tunnels have sent IKE.");
    }
    Ok(())
}

pub(crate) async fn unknown_agents(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let output = output(matches);
    let count = output.list(&UNKNOWN_AGENT, session.client.list(UNKNOWN_AGENTS, &[], None)).await?;
    if output.screen.is_terminal {
        say(match count {
            0 => "No unknown agent has connected in the last hour.",
            _ => {
                "If the database was restored and you know them, `wicketgate agent adopt ID` takes them in. If not, treat the \
                 authority's key as stolen. One that was removed after the backup cannot be adopted: stop it on its host, or \
                 enrol it with a new code."
            }
        });
    }
    Ok(())
}

pub(crate) async fn adopt(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let id = which_one(matches);
    // It is part of a path.
    if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(Failed::usage("ID is like agt-0190f3…, as `wicketgate agent unknown` has it"));
    }
    let adopted =
        session.client.write(Method::POST, &format!("{UNKNOWN_AGENTS}/{id}/adopt"), None, None).await?;
    output(matches).one(&AGENT, &adopted)
}

pub(crate) async fn enrol(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let mut body = json!({});
    if let Some(said) = matches.get_one::<String>("env") {
        body["environmentId"] = session.resolve(&ENVIRONMENT, said).await?.0.into();
    }
    let list = session.list_path(&AGENT).await?;
    let made = session.client.write(Method::POST, &format!("{list}/enrollments"), Some(&body), None).await?;
    let output = output(matches);
    if output.form != (Form::Table { is_wide: false }) || output.jq.is_some() {
        return output.one(&AGENT, &made);
    }
    let code = text(&made, "enrollmentCode");
    // It is printed for a shell.
    if code.is_empty() || !code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(Failed::other("the server's answer has no enrolment code: is it a Wicketgate server?"));
    }
    let given = matches.get_one::<String>("agent-server").map(String::as_str);
    let server = agent_server(given, &made);
    let mut out = io::stdout().lock();
    // The shell's own echo: the code is in no process list. The space before it keeps the line out of the history of shells that
    // are set up so, as Debian's is for each new user.
    writeln!(
        out,
        " echo {} | wicketgate-agent start --server {server} --enrollment-token-file /dev/stdin --state-dir ./agent-state",
        code
    )?;
    say(&format!(
        "Run it once in the private network, before {}. --allow CIDR:PORTS limits what the agent may reach.",
        cell(&made["expiresAt"])
    ));
    Ok(())
}

/// Where an agent of the private network connects to: as the flag says, or as the server does.
fn agent_server<'a>(given: Option<&'a str>, made: &'a Value) -> &'a str {
    // It is printed for a shell.
    let is_plain = |url: &&str| url.bytes().all(|b| b.is_ascii_alphanumeric() || b":/.-[]".contains(&b));
    given.or_else(|| made["agentServer"].as_str().filter(is_plain)).unwrap_or("https://GATEWAY:8443")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_sent_where_the_flag_or_the_server_says() {
        let made = json!({"agentServer": "https://[2001:db8::1]:8443"});
        assert_eq!(agent_server(None, &made), "https://[2001:db8::1]:8443");
        assert_eq!(agent_server(Some("https://gw.example"), &made), "https://gw.example");
        let unknown = "https://GATEWAY:8443";
        assert_eq!(agent_server(None, &json!({})), unknown);
        assert_eq!(agent_server(None, &json!({"agentServer": "https://gw;reboot"})), unknown);
    }
}
