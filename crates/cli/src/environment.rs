//! `wicketgate env delete`: the API deletes an environment's shares and removes its agents, too.

use clap::ArgMatches;
use futures_util::TryStreamExt as _;
use serde_json::Value;
use wicketgate_client::Method;

use crate::{
    arguments::which_one,
    context::Session,
    failed::Failed,
    kind::{AGENT, ENVIRONMENT, Kind, SHARE},
    say::say,
    session::text,
};

pub(crate) async fn delete(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let (_, path) = session.resolve(&ENVIRONMENT, which_one(matches)).await?;
    let environment = session.client.get(&path, &[]).await?;
    // It may have been said by its id.
    let said = text(&environment, ENVIRONMENT.label);
    let shares = names_in(session, &SHARE, &environment).await?;
    if !shares.is_empty() && !matches.get_flag("with-shares") {
        return Err(Failed::other(format!(
            "env {said} has shares, which would be deleted with it: {}. Delete them first, or give --with-shares",
            shares.join(", ")
        )));
    }
    let agents = names_in(session, &AGENT, &environment).await?;
    session.client.write(Method::DELETE, &path, None, None).await?;
    let mut what = format!("env {said}");
    for (kind, names) in [(&SHARE, shares), (&AGENT, agents)] {
        if !names.is_empty() {
            what += &format!(", its {} {}", kind.plural, names.join(", "));
        }
    }
    say(&format!("Deleted {what}."));
    Ok(())
}

/// The names of the resources of an environment that are not being deleted already.
async fn names_in(session: &Session, kind: &Kind, environment: &Value) -> Result<Vec<String>, Failed> {
    let query = [("envZId".to_owned(), text(environment, "zId").to_owned())];
    let all: Vec<_> =
        session.client.list(&session.list_path(kind).await?, &query, None).try_collect().await?;
    let live = all.iter().filter(|one| one["status"] != "DELETING" && one["status"] != "DELETED");
    Ok(live.map(|one| text(one, kind.label).to_owned()).collect())
}
