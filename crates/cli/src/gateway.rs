//! The verbs that only gateways have.

use std::io::{self, Write as _};

use clap::ArgMatches;
use serde_json::{Value, json};
use wicketgate_client::Method;

use crate::{
    arguments::{output, which_one},
    context::Session,
    failed::Failed,
    kind::{GATEWAY, Kind, column},
    output::Form,
    say::say,
    session::text,
    table::cell,
};

/// A token that no gateway has used.
const TOKEN: Kind = Kind {
    name: "join token",
    plural: "join tokens",
    label: "id",
    columns: &[
        column("ID", "/id"),
        column("STATE", "/state"),
        column("LOCATION", "/locationId"),
        column("GATEWAY", "/gatewayId"),
        column("EXPIRES", "/expiresAt"),
        column("BY", "/createdBy"),
    ],
    ..GATEWAY
};

pub(crate) async fn join(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let location = matches.get_one::<String>("location").map(String::as_str);
    create(session, &json!({"locationId": location}), matches).await
}

pub(crate) async fn replace(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    create(session, &json!({"gatewayId": which_one(matches)}), matches).await
}

async fn create(session: &Session, body: &Value, matches: &ArgMatches) -> Result<(), Failed> {
    let list = tokens_path(session).await?;
    let made = session.client.write(Method::POST, &list, Some(body), None).await?;
    let output = output(matches);
    if output.form != (Form::Table { is_wide: false }) || output.jq.is_some() {
        return output.one(&TOKEN, &made);
    }
    // The shell's own echo: the token is in no process list. See `enrol` of agents for the space.
    writeln!(io::stdout().lock(), " {}", command(&made)?)?;
    say(&format!("Run it once on the gateway's machine, before {}.", cell(&made["expiresAt"])));
    Ok(())
}

/// What the machine of the gateway runs.
fn command(made: &Value) -> Result<String, Failed> {
    let no_token = || Failed::other("the server's answer has no join token: is it a Wicketgate server?");
    // It is printed for a shell.
    let is_plain = |text: &&str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":.-[]".contains(&b))
    };
    let token = Some(text(made, "joinToken")).filter(is_plain).ok_or_else(no_token)?;
    let servers: Vec<_> =
        made["servers"].as_array().into_iter().flatten().filter_map(Value::as_str).filter(is_plain).collect();
    let servers = if servers.is_empty() { vec!["SERVER:8444"] } else { servers };
    let servers: String = servers.iter().map(|server| format!(" --server {server}")).collect();
    Ok(format!("echo {token} | wicketgate gateway{servers} --join-token-file /dev/stdin"))
}

pub(crate) async fn tokens(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let list = tokens_path(session).await?;
    let newest = [("sort".to_owned(), "createdAt,desc".to_owned())];
    if output(matches).list(&TOKEN, session.client.list(&list, &newest, None)).await? == 0 {
        say("Every join token was used.");
    }
    Ok(())
}

pub(crate) async fn revoke(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let id = which_one(matches);
    if !id.strip_prefix("gwj-").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(Failed::usage(
            "ID is like gwj-0190f3…, as `wicketgate gateway join-tokens` has it, and not the token",
        ));
    }
    let path = format!("{}/{id}", tokens_path(session).await?);
    session.client.write(Method::DELETE, &path, None, None).await?;
    say(&format!("Revoked {id}: no gateway can join with it."));
    Ok(())
}

async fn tokens_path(session: &Session) -> Result<String, Failed> {
    Ok(format!("{}/join-tokens", session.list_path(&GATEWAY).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_the_servers_and_nothing_that_a_shell_would_run() {
        let made =
            json!({"joinToken": "GWJ-1", "servers": ["a.example:8444", "[2001:db8::1]:8444", "b;reboot"]});
        let expected = "echo GWJ-1 | wicketgate gateway --server a.example:8444 --server [2001:db8::1]:8444 \
                        --join-token-file /dev/stdin";
        assert_eq!(command(&made).unwrap(), expected);
        assert!(command(&json!({"joinToken": "GWJ-1"})).unwrap().contains("--server SERVER:8444"));
        for token in ["", "GWJ-1;reboot"] {
            assert!(command(&json!({"joinToken": token})).is_err());
        }
    }
}
