//! Contexts: signing in, signing out, and choosing.

use std::{
    fs, io,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use clap::ArgMatches;
use futures_util::TryStreamExt as _;
use secrecy::ExposeSecret as _;
use url::Url;
use wicketgate_client::{ApiClient, Credentials};
use wicketgate_system::private_file;

use crate::{
    arguments::choice,
    context::{Context, Contexts, Session, must_be_private, secret, secret_file},
    failed::Failed,
    kind::FRONTDOOR,
    say::say,
    session::text,
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
    let mut session = Session { client, frontdoor: one("frontdoor-choice") };
    let all: Vec<_> = session.client.list("frontdoor/v2", &[], Some(20)).try_collect().await?;
    let frontdoor = match (&session.frontdoor, &all[..]) {
        (Some(said), _) => Some(session.resolve(&FRONTDOOR, &said.clone()).await?.0),
        (None, [only]) => Some(text(only, "id").to_owned()),
        (None, _) => None,
    };
    session.frontdoor.clone_from(&frontdoor);
    fs::create_dir_all(folder)?;
    private_file::replace(&secret_file(folder, &name), secret.expose_secret().as_bytes())?;
    let mut contexts = Contexts::load(folder)?;
    let ca = ca.map(fs::canonicalize).transpose()?;
    let context =
        Context { server: server.clone(), frontdoor: frontdoor.clone(), account, ca, insecure_http };
    contexts.contexts.insert(name.clone(), context);
    contexts.current = Some(name.clone());
    contexts.store(folder)?;
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

pub(crate) fn logout(folder: &Path, matches: &ArgMatches) -> Result<(), Failed> {
    let mut contexts = Contexts::load(folder)?;
    let name = matches.get_one::<String>("name").or(contexts.current.as_ref()).cloned();
    let Some(name) = name.filter(|name| contexts.contexts.contains_key(name)) else {
        return Err(Failed::usage("there is no such context: `wicketgate context list` shows all"));
    };
    contexts.contexts.remove(&name);
    if contexts.current.as_ref() == Some(&name) {
        contexts.current = None;
    }
    contexts.store(folder)?;
    match fs::remove_file(secret_file(folder, &name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => say(&format!(
            "Forgot context {name} and its secret. The server still accepts the secret until it is revoked there."
        )),
    }
    Ok(())
}

pub(crate) async fn context(folder: &Path, matches: &ArgMatches) -> Result<(), Failed> {
    let mut contexts = Contexts::load(folder)?;
    match matches.subcommand() {
        Some(("use", matches)) => {
            let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
            if !contexts.contexts.contains_key(&name) {
                return Err(Failed::usage(format!(
                    "there is no context {name}: `wicketgate context list` shows all"
                )));
            }
            contexts.current = Some(name);
            contexts.store(folder)
        }
        Some(("set", matches)) => {
            let choice = choice(matches);
            if choice.frontdoor.is_none() {
                return Err(Failed::usage("nothing to set: give --frontdoor NAME"));
            }
            let id = choice.session(folder)?.frontdoor_id().await?;
            let name = choice.context.or_else(|| contexts.current.clone());
            let context = name.and_then(|name| contexts.contexts.get_mut(&name));
            let context = context.ok_or_else(|| {
                Failed::usage("there is no current context: sign in with `wicketgate login`")
            })?;
            context.frontdoor = Some(id);
            contexts.store(folder)
        }
        _ => {
            let mut out = io::stdout().lock();
            for (name, context) in &contexts.contexts {
                let mark = if contexts.current.as_ref() == Some(name) { '*' } else { ' ' };
                let frontdoor = context.frontdoor.as_deref().unwrap_or("-");
                writeln!(out, "{mark} {name}\t{}\t{frontdoor}", context.server)?;
            }
            Ok(())
        }
    }
}
