//! Handover links of a tunnel: makes one, lists them, revokes one.

use std::io::{self, Write as _};

use clap::ArgMatches;
use serde_json::json;
use wicketgate_client::Method;

use crate::{
    arguments::{output, which_one},
    context::Session,
    failed::Failed,
    kind::{HANDOVER_LINK, HANDOVER_LINK_REQUEST, TUNNEL},
    output::Form,
    say::say,
    schema,
    session::text,
    table::cell,
};

/// Prints the address to send to the site's engineer.
pub(crate) async fn create(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let body = schema::body(&HANDOVER_LINK, HANDOVER_LINK_REQUEST, matches)?;
    let list = list_of(session, matches).await?;
    let mut made = session.client.write(Method::POST, &list, Some(&body), None).await?;
    let url = absolute(session.client.base().as_str(), text(&made, "url"));
    made["url"] = url.as_str().into();
    let output = output(matches);
    if output.form != (Form::Table { is_wide: false }) || output.jq.is_some() {
        return output.one(&HANDOVER_LINK, &made);
    }
    writeln!(io::stdout().lock(), "{url}")?;
    let protected = match made["hasPassphrase"] == json!(true) {
        true => "Send the passphrase on another channel.",
        false => {
            "The link gives access to the tunnel's key: send it on a channel that is safe for passwords."
        }
    };
    say(&format!("It works until {}, {} times. {protected}", cell(&made["expiresAt"]), made["maxUses"]));
    Ok(())
}

pub(crate) async fn list(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let (path, newest) = (list_of(session, matches).await?, ("sort".to_owned(), "createdAt,desc".to_owned()));
    output(matches).list(&HANDOVER_LINK, session.client.list(&path, &[newest], None)).await?;
    Ok(())
}

pub(crate) async fn revoke(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let list = list_of(session, matches).await?;
    let id = matches.get_one::<String>("link").map(String::as_str).unwrap_or_default();
    if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(Failed::usage(format!("{id} is not the id of a handover link, like lnk-…")));
    }
    session.client.write(Method::DELETE, &format!("{list}/{id}"), None, None).await?;
    say(&format!("Revoked {id}, and ended the pages that it has opened."));
    Ok(())
}

async fn list_of(session: &Session, matches: &ArgMatches) -> Result<String, Failed> {
    let (_, path) = session.resolve(&TUNNEL, which_one(matches)).await?;
    Ok(format!("{path}/handover-links"))
}

/// A server that does not know its own address names a path.
fn absolute(base: &str, url: &str) -> String {
    if url.starts_with('/') { format!("{}{url}", base.trim_end_matches('/')) } else { url.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_that_of_the_server_that_was_asked() {
        assert_eq!(absolute("https://gw.example/wg/", "/site#wgh_x"), "https://gw.example/wg/site#wgh_x");
        assert_eq!(absolute("https://10.0.0.1", "https://gw.example/site#x"), "https://gw.example/site#x");
    }

    #[test]
    fn a_passphrase_is_read_from_a_file_and_is_no_flag() {
        let command = schema::with_flags(clap::Command::new("handover"), HANDOVER_LINK_REQUEST, false);
        let flags: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert!(flags.contains(&"passphrase-file") && !flags.contains(&"passphrase"), "{flags:?}");
        assert!(flags.contains(&"max-uses") && flags.contains(&"expires-at"), "{flags:?}");
    }
}
