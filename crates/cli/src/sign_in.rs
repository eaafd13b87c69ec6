//! Contexts: signing in, signing out, and choosing.

use std::{
    fs, io,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use clap::ArgMatches;
use futures_util::TryStreamExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use wicketgate_client::{ApiClient, Credentials, Failure};
use wicketgate_system::{if_exists, private_file};

use crate::{
    arguments::choice,
    context::{Context, Contexts, Session, must_be_private, secret},
    failed::Failed,
    kind::{ACCOUNT, FRONTDOOR},
    say::say,
    session::{is_id, text},
};

/// Asks the server whether it takes the secret, and remembers both.
pub(crate) async fn login(folder: &Path, matches: &ArgMatches) -> Result<(), Failed> {
    let one = |name: &str| matches.get_one::<String>(name).cloned();
    let name = one("name").unwrap_or_default();
    if name.is_empty()
        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        || name.starts_with('.')
    {
        return Err(Failed::usage(format!("--name {name}: letters, digits, hyphens, dots and underscores")));
    }
    let server =
        matches.get_one::<Url>("server").cloned().ok_or_else(|| Failed::usage("--server is missing"))?;
    let insecure_http = matches.get_flag("insecure-http");
    if !insecure_http {
        must_be_private(&server)?;
    }
    let account = one("account");
    let file = one("secret-file").or_else(|| one("token-file")).unwrap_or_default();
    if file == "-" && io::stdin().is_terminal() {
        say(if account.is_some() { "Paste the account's secret:" } else { "Paste the token:" });
    }
    let secret = secret(&file)?;
    let credentials = match &account {
        Some(id) => Credentials::Account { id: id.clone(), secret: secret.clone() },
        None => Credentials::Token(secret.clone()),
    };
    let ca = matches.get_one::<PathBuf>("ca").cloned();
    let client = ApiClient::new(server.clone(), Some(credentials), ca.clone())?;
    let mut session = Session::new(client, one("frontdoor-choice"));
    let all: Result<Vec<_>, _> = session.client.list("frontdoor/v2", &[], Some(20)).try_collect().await;
    let all = all.map_err(|failure| refused(failure, account.as_deref()))?;
    let frontdoor = match (&session.frontdoor, &all[..]) {
        (Some(said), _) => Some(session.resolve(&FRONTDOOR, &said.clone()).await?.0),
        (None, [only]) => Some(text(only, "id").to_owned()),
        (None, _) => None,
    };
    session.frontdoor.clone_from(&frontdoor);
    fs::create_dir_all(folder)?;
    let ca = ca.map(fs::canonicalize).transpose()?;
    let context = Context {
        server: server.clone(),
        frontdoor: frontdoor.clone(),
        account,
        ca,
        secret: None,
        insecure_http,
    };
    remember(folder, &name, &secret.secret, context)?;
    say(&format!("Signed in to {server} as context {name}."));
    match (frontdoor, all.len()) {
        (Some(_), _) => {}
        (None, 0) => say("This token sees no Frontdoor. Next: wicketgate frontdoor create --help"),
        (None, _) => {
            let names: Vec<_> = all.iter().map(|one| text(one, "defaultNamespaceName")).collect();
            say(&format!(
                "There are several Frontdoors. Next: wicketgate context set --frontdoor {}",
                names.join("|")
            ));
        }
    }
    Ok(())
}

/// An account is known by its client id alone: a caller who has not signed in yet cannot ask for the id of a name.
fn refused(failure: Failure, account: Option<&str>) -> Failed {
    match account.filter(|said| !is_id(&ACCOUNT, said)) {
        Some(said) if matches!(failure, Failure::NotSignedIn { .. }) => Failed::from(failure).with(&format!(
            "{said} is no client id: give the one that `wicketgate account create` printed, and that an admin sees in \
             `wicketgate account list`"
        )),
        _ => failure.into(),
    }
}

/// Stores a context as the current one. Its secret is in a file of its own before the context names it, and an older one goes
/// after that.
fn remember(folder: &Path, name: &str, secret: &SecretString, context: Context) -> Result<(), Failed> {
    let parts = (&*format!("{name}-"), ".secret");
    let mut new = None;
    let replaced = Contexts::change(folder, |contexts| {
        let file = private_file::create_unique(folder, parts, secret.expose_secret().as_bytes())?;
        new = Some(folder.join(&file));
        let context = Context { secret: Some(file), ..context };
        contexts.current = Some(name.to_owned());
        Ok(contexts.contexts.insert(name.to_owned(), context))
    });
    let unused = match &replaced {
        Ok(old) => old.as_ref().map(|old| old.secret_file(folder, name)),
        Err(_) => new,
    };
    if let Some(unused) = unused {
        remove_unused(folder, &unused)?;
    }
    replaced.map(drop)
}

/// Removes a secret that no context names. One whose change has failed may name it nevertheless.
fn remove_unused(folder: &Path, secret: &Path) -> Result<(), Failed> {
    if !Contexts::load(folder)?.names(folder, secret) {
        if_exists(fs::remove_file(secret))?;
    }
    Ok(())
}

pub(crate) fn logout(folder: &Path, matches: &ArgMatches) -> Result<(), Failed> {
    let (name, context) = Contexts::change(folder, |contexts| {
        let name = matches.get_one::<String>("name").or(contexts.current.as_ref()).cloned();
        let removed = name.and_then(|name| contexts.contexts.remove_entry(&name));
        if contexts.current.as_ref() == removed.as_ref().map(|(name, _)| name) {
            contexts.current = None;
        }
        removed.ok_or_else(|| Failed::usage("there is no such context: `wicketgate context list` shows all"))
    })?;
    if_exists(fs::remove_file(context.secret_file(folder, &name)))?;
    say(&format!(
        "Forgot context {name} and its secret. The server still accepts the secret until it is revoked there."
    ));
    Ok(())
}

pub(crate) async fn context(folder: &Path, matches: &ArgMatches) -> Result<(), Failed> {
    match matches.subcommand() {
        Some(("use", matches)) => Contexts::change(folder, |contexts| {
            let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
            if !contexts.contexts.contains_key(&name) {
                return Err(Failed::usage(format!(
                    "there is no context {name}: `wicketgate context list` shows all"
                )));
            }
            contexts.current = Some(name);
            Ok(())
        }),
        Some(("set", matches)) => {
            let (mut choice, contexts) = (choice(matches), Contexts::load(folder)?);
            if choice.frontdoor.is_none() {
                return Err(Failed::usage("nothing to set: give --frontdoor NAME"));
            }
            let none = || Failed::usage("there is no current context: sign in with `wicketgate login`");
            let name = choice.context.clone().or(contexts.current).ok_or_else(none)?;
            choice.context = Some(name.clone());
            let id = choice.session(folder)?.frontdoor_id().await?;
            Contexts::change(folder, |now| match now.contexts.get_mut(&name) {
                // Its Frontdoors may be those of another server.
                Some(context)
                    if contexts.contexts.get(&name).is_some_and(|asked| asked.server == context.server) =>
                {
                    context.frontdoor = Some(id);
                    Ok(())
                }
                _ => Err(Failed::other(format!("context {name} was changed in the meantime: try again"))),
            })
        }
        _ => {
            let (contexts, mut out) = (Contexts::load(folder)?, io::stdout().lock());
            for (name, context) in &contexts.contexts {
                let mark = if contexts.current.as_ref() == Some(name) { '*' } else { ' ' };
                let frontdoor = context.frontdoor.as_deref().unwrap_or("-");
                writeln!(out, "{mark} {name}\t{}\t{frontdoor}", context.server)?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_is_called_by_its_name_is_told_where_its_id_is() {
        let said = |account: &str| {
            let failure = Failure::NotSignedIn { why: "why".to_owned(), account: Some(account.to_owned()) };
            refused(failure, Some(account)).to_string()
        };
        assert!(said("terraform").contains("terraform is no client id: "));
        assert!(!said("acc-0190f3a4c0de7000800000000000abcd").contains("no client id"));
    }

    #[test]
    fn a_secret_that_a_context_names_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = "[contexts.a]\nserver = \"https://gw.example\"\nsecret = \"a-1.secret\"\n";
        fs::write(at("contexts.toml"), text).unwrap();
        for (file, is_kept) in [("a-1.secret", true), ("a-2.secret", false)] {
            fs::write(at(file), "secret").unwrap();
            remove_unused(folder.path(), &at(file)).unwrap();
            assert_eq!(at(file).exists(), is_kept, "{file}");
        }
    }
}
