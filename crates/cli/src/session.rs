//! Paths of resources, and the names that people use instead of ids.

use futures_util::TryStreamExt as _;
use serde_json::Value;

use crate::{
    context::Session,
    failed::Failed,
    kind::{ENVIRONMENT, FRONTDOOR, Kind, TUNNEL},
};

/// Candidates that a message names.
const MOST_NAMED: usize = 5;

impl Session {
    /// The path of a list.
    pub(crate) async fn list_path(&self, kind: &Kind) -> Result<String, Failed> {
        Ok(match (kind.is_below_frontdoor, kind.path) {
            (true, path) => format!("frontdoor/v2/{}/{path}", self.frontdoor_id().await?),
            (false, "") => "frontdoor/v2".to_owned(),
            (false, path) => format!("frontdoor/v2/{path}"),
        })
    }

    /// The id of the Frontdoor that was chosen, or of the only one.
    pub(crate) async fn frontdoor_id(&self) -> Result<String, Failed> {
        if let Some(chosen) = &self.frontdoor {
            return Ok(self.resolve(&FRONTDOOR, chosen).await?.0);
        }
        let all: Vec<_> = self.client.list("frontdoor/v2", &[], Some(2)).try_collect().await?;
        match &all[..] {
            [only] => Ok(text(only, "id").to_owned()),
            [] => Err(Failed::other("this token sees no Frontdoor: ask an administrator for one of its own")),
            _ => Err(Failed::usage(
                "there are several Frontdoors: choose one with --frontdoor NAME, or for good with \
                 `wicketgate context set --frontdoor NAME`",
            )),
        }
    }

    /// The id and the path of the resource that a name or an id says.
    pub(crate) async fn resolve(&self, kind: &Kind, said: &str) -> Result<(String, String), Failed> {
        let list = match kind.name {
            "frontdoor" => "frontdoor/v2".to_owned(),
            _ => Box::pin(self.list_path(kind)).await?,
        };
        let at = |id: &str| (id.to_owned(), format!("{list}/{}", escaped(id)));
        if is_id(kind, said) {
            return Ok(at(said));
        }
        let mut found = Vec::new();
        // An environment has a short id beside its name, as shares name it.
        let labels = if kind.name == ENVIRONMENT.name { &[kind.label, "zId"][..] } else { &[kind.label] };
        for label in labels {
            let query = [((*label).to_owned(), said.to_owned())];
            found = self.client.list(&list, &query, Some(MOST_NAMED + 1)).try_collect().await?;
            if !found.is_empty() {
                break;
            }
        }
        match &found[..] {
            [only] => Ok(at(text(only, kind.id))),
            [] => Err(Failed::other(format!(
                "there is no {} {said}: `wicketgate {} list` shows all",
                kind.name, kind.name
            ))),
            several => {
                let ids: Vec<_> = several.iter().take(MOST_NAMED).map(|one| text(one, kind.id)).collect();
                Err(Failed::usage(format!(
                    "several {} are called {said}: use an id, such as {}",
                    kind.plural,
                    ids.join(", ")
                )))
            }
        }
    }

    /// Replaces the names of other resources in a body by their ids.
    pub(crate) async fn resolve_references(&self, body: &mut Value) -> Result<(), Failed> {
        if let Some(said) = body["ipsecTunnelId"].as_str() {
            body["ipsecTunnelId"] = self.resolve(&TUNNEL, said).await?.0.into();
        }
        if let Some(said) = body["envZId"].as_str().map(str::to_owned) {
            match self.resolve(&ENVIRONMENT, &said).await {
                Ok((_, path)) => body["envZId"] = self.client.get(&path, &[]).await?["zId"].clone(),
                // A share may be made before its environment.
                Err(_) if is_z_id(&said) => {}
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }
}

/// Ids of the API have a prefix of three letters, or are UUIDs.
pub(crate) fn is_id(kind: &Kind, said: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let bare = said.replace('-', "");
    kind.label == kind.id
        || said
            .split_once('-')
            .is_some_and(|(prefix, rest)| prefix.len() == 3 && rest.len() == 32 && is_hex(rest))
        || (said.len() == 36 && bare.len() == 32 && is_hex(&bare))
}

/// Ten letters, digits or hyphens.
fn is_z_id(said: &str) -> bool {
    said.len() == 10 && said.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A segment of a path.
pub(crate) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            all.push(b.into());
        } else {
            all.push_str(&format!("%{b:02X}"));
        }
        all
    })
}

/// A string property, or nothing.
pub(crate) fn text<'a>(resource: &'a Value, property: &str) -> &'a str {
    resource[property].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{ACCOUNT, LOCATION};

    #[test]
    fn an_id_is_told_from_a_name() {
        assert!(is_id(&TUNNEL, "tnl-0190f3a4c0de7000800000000000abcd"));
        assert!(is_id(&FRONTDOOR, "0190f3a4-c0de-7000-8000-00000000abcd"));
        assert!(is_id(&LOCATION, "us-east-1"));
        for name in ["customer-a", "app-db", "abc-0190", "0190f3a4"] {
            assert!(!is_id(&TUNNEL, name) && !is_id(&ACCOUNT, name), "{name}");
        }
        assert_eq!(escaped("a/b c"), "a%2Fb%20c");
    }
}
