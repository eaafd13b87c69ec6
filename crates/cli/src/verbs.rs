//! What every kind of resource can be asked for: list, get, create, update, delete.

use std::io::{self, Write as _};

use clap::{ArgMatches, parser::ValueSource};
use futures_util::TryStreamExt as _;
use serde_json::Value;
use tokio::sync::Mutex;
use wicketgate_client::Method;

use crate::{
    arguments::{filters, output, patience, which_one},
    context::Session,
    failed::Failed,
    kind::{ACCOUNT, Kind},
    next::{self, suggest},
    output::{Form, Output, name},
    peer_address,
    reference_names::ReferenceNames,
    say::say,
    schema,
    secret_out::SecretOut,
    session::{escaped, is_id, text},
};

/// The record of an organization: of its accounts and its Frontdoors.
const ORGANIZATION_EXECUTIONS: &str = "frontdoor/v2/executions";

fn of_organization(matches: &ArgMatches) -> bool {
    matches.try_get_one::<bool>("organization").ok().flatten().copied().unwrap_or_default()
}

pub(crate) async fn list(session: &Session, kind: &Kind, matches: &ArgMatches) -> Result<(), Failed> {
    let path = match of_organization(matches) {
        true => ORGANIZATION_EXECUTIONS.to_owned(),
        false => session.list_path(kind).await?,
    };
    let (query, output) = (filters(matches)?, output(matches));
    let limit = matches.get_one::<usize>("limit").copied();
    let resources = session.client.list(&path, &query, limit);
    let references = ReferenceNames::of(session, kind, output.is_wide());
    let named = async |resource| Ok(references.named(resource).await);
    let count = output.list(kind, resources.and_then(named)).await?;
    if count == 0 && output.screen.is_terminal {
        say(&format!("There are no {}{}.", kind.plural, if query.is_empty() { "" } else { " like that" }));
    }
    next::after_list(matches, kind.name, count == 0 && query.is_empty());
    Ok(())
}

pub(crate) async fn get(session: &Session, kind: &Kind, matches: &ArgMatches) -> Result<(), Failed> {
    let path = match of_organization(matches) {
        true => format!("{ORGANIZATION_EXECUTIONS}/{}", escaped(which_one(matches))),
        false => session.resolve(kind, which_one(matches)).await?.1,
    };
    let (output, resource) = (output(matches), session.client.get(&path, &[]).await?);
    let references = ReferenceNames::of(session, kind, output.is_wide().map(|_| true));
    output.one(kind, &references.named(resource).await)
}

pub(crate) async fn create(session: &Session, kind: &Kind, matches: &ArgMatches) -> Result<(), Failed> {
    let Some(schema) = kind.create else { return Ok(()) };
    let is_said = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    if kind.name == ACCOUNT.name && is_said("frontdoor-choice") {
        return Err(Failed::usage(
            "--frontdoor does not limit an account, which is of an organization: give --frontdoor-id ID for each Frontdoor that it \
             may reach; `wicketgate frontdoor list -o wide` has their ids",
        ));
    }
    let mut body = schema::body(kind, schema, matches)?;
    if let Some(name) = matches.try_get_one::<String>("name").ok().flatten() {
        body[kind.label] = name.as_str().into();
    }
    let missing = schema::missing(schema, kind.label, &body);
    if !missing.is_empty() {
        return Err(Failed::usage(format!(
            "{} create needs {}: see `wicketgate {} create --help`",
            kind.name,
            missing.join(", "),
            kind.name
        )));
    }
    session.resolve_references(&mut body).await?;
    let list = session.list_path(kind).await?;
    if kind.name == ACCOUNT.name {
        return create_account(session, (&list, &body), matches).await;
    }
    let made = peer_address::write(session, (Method::POST, &list), &body, matches).await?;
    written(session, kind, &format!("{list}/{}", text(&made, kind.id)), made, matches).await
}

/// Its secret goes to a file, or is printed with the account.
async fn create_account(
    session: &Session,
    made_of: (&str, &Value),
    matches: &ArgMatches,
) -> Result<(), Failed> {
    let (output, whole) = (output(matches), Mutex::new(()));
    let (name, file) = (text(made_of.1, "name"), matches.get_one::<String>("client-secret-file"));
    if let Some(path) =
        file.filter(|path| std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() > 0))
    {
        return Err(Failed::usage(format!(
            "--client-secret-file: {path} has something, perhaps the secret of another account: name a new file, or move it away"
        )));
    }
    let secret = match file {
        Some(path) => SecretOut::file(name, "--client-secret-file", path)?,
        None => SecretOut::standard(name, &output),
    };
    let create = secret.create(session, made_of, &whole, "create it again");
    let mut made = session.unless_interrupted(&whole, create).await?;
    if file.is_some() {
        made.as_object_mut().map(|account| account.remove("clientSecret"));
        shown(&ACCOUNT, &made, &output)?;
    }
    suggest(matches, ACCOUNT.next, &made);
    Ok(())
}

pub(crate) async fn update(session: &Session, kind: &Kind, matches: &ArgMatches) -> Result<(), Failed> {
    let Some(schema) = kind.update else { return Ok(()) };
    let mut body = schema::body(kind, schema, matches)?;
    // A tunnel that has lost its address gets it back without another change.
    if body.as_object().is_none_or(serde_json::Map::is_empty) && !peer_address::is_taken(matches) {
        return Err(Failed::usage(format!(
            "nothing to change: give a flag, such as those of `wicketgate {} update --help`",
            kind.name
        )));
    }
    session.resolve_references(&mut body).await?;
    let (_, path) = session.resolve(kind, which_one(matches)).await?;
    let changed = peer_address::write(session, (Method::PATCH, &path), &body, matches).await?;
    let quotas = quotas(&body, &changed);
    written(session, kind, &path, changed, matches).await?;
    quotas.iter().for_each(|line| say(line));
    Ok(())
}

/// What a Frontdoor has, and may have, of the kinds that were just limited: its line does not show them.
fn quotas(body: &Value, changed: &Value) -> Vec<String> {
    let kinds = body["quotas"].as_object().into_iter().flatten();
    let line = |kind: &String| {
        let quota = &changed["quotas"][kind];
        Some(format!("Quota of {kind}: {} of {} in use.", quota["used"].as_u64()?, quota["limit"].as_u64()?))
    };
    kinds.filter_map(|(kind, _)| line(kind)).collect()
}

pub(crate) async fn delete(session: &Session, kind: &Kind, matches: &ArgMatches) -> Result<(), Failed> {
    let said = which_one(matches);
    let (id, path) = session.resolve(kind, said).await?;
    let said = match is_id(kind, said) {
        true => name(kind, &session.client.get(&path, &[]).await?),
        false => said.to_owned(),
    };
    let below = if kind.name == ACCOUNT.name { accounts_below(session, &id).await? } else { Vec::new() };
    session.client.write(Method::DELETE, &path, None, None).await?;
    if !below.is_empty() {
        say(&format!(
            "With it end the accounts that it created, or that these created: {}.",
            below.join(", ")
        ));
    }
    let patience = patience(matches);
    if kind.settles && patience.waits {
        session.settled(kind, &path, patience).await?;
        say(&format!("Deleted {} {said}.", kind.name));
    } else {
        say(&format!("{} {} {said}.", if kind.settles { "Deleting" } else { "Deleted" }, kind.name));
    }
    Ok(())
}

/// The names of the accounts that go back to an account.
async fn accounts_below(session: &Session, id: &str) -> Result<Vec<String>, Failed> {
    let list = session.list_path(&ACCOUNT).await?;
    Ok(below(session.client.list(&list, &[], None).try_collect().await?, id))
}

fn below(mut left: Vec<Value>, id: &str) -> Vec<String> {
    let (mut found, mut above) = (Vec::new(), vec![id.to_owned()]);
    while let Some(creator) = above.pop() {
        for account in left.extract_if(.., |account| text(account, "createdBy") == creator) {
            above.push(text(&account, ACCOUNT.id).to_owned());
            found.push(text(&account, ACCOUNT.label).to_owned());
        }
    }
    found.sort();
    found
}

/// Waits for a write if that was asked for, prints the resource, and suggests the next command.
pub(crate) async fn written(
    session: &Session,
    kind: &Kind,
    path: &str,
    resource: Value,
    matches: &ArgMatches,
) -> Result<(), Failed> {
    let (output, patience) = (output(matches), patience(matches));
    let settled = kind.settles && patience.waits;
    let resource = match settled {
        true => session.settled(kind, path, patience).await?.unwrap_or(resource),
        false => resource,
    };
    shown(kind, &resource, &output)?;
    suggest(matches, kind.next, &resource);
    Ok(())
}

/// A person gets the line of a table; a program gets what it asked for.
pub(crate) fn shown(kind: &Kind, resource: &Value, output: &Output) -> Result<(), Failed> {
    match output.form {
        Form::Table { is_wide } if output.jq.is_none() => {
            let columns = kind.columns.iter().filter(|column| is_wide || !column.is_wide).collect();
            let mut table = crate::table::Table::new(columns, &output.screen);
            let mut out = io::stdout().lock();
            table.row(resource, &mut out)?;
            table.end(&mut out)?;
            Ok(out.flush()?)
        }
        _ => output.one(kind, resource),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quotas_that_were_set_are_told() {
        let changed =
            json!({"quotas": {"shares": {"limit": 5, "used": 3}, "tunnels": {"limit": 9, "used": 0}}});
        assert_eq!(quotas(&json!({"quotas": {"shares": 5}}), &changed), ["Quota of shares: 3 of 5 in use."]);
        assert_eq!(quotas(&json!({"name": "x"}), &changed), [""; 0]);
    }

    #[test]
    fn accounts_that_go_back_to_another_are_named() {
        let account = |id: &str, name: &str, by: &str| json!({"clientId": id, "name": name, "createdBy": by});
        let all = [
            ("acc-1", "a", "admin"),
            ("acc-2", "b", "acc-1"),
            ("acc-3", "c", "acc-2"),
            ("acc-4", "d", "acc-9"),
        ];
        let all: Vec<_> = all.map(|(id, name, by)| account(id, name, by)).into();
        assert_eq!(below(all.clone(), "acc-1"), ["b", "c"]);
        assert_eq!(below(all, "acc-3"), [] as [&str; 0]);
    }
}
