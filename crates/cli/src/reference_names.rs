//! The names of what a resource refers to by an id, for people.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    context::Session,
    kind::{ACCOUNT, AGENT, ENVIRONMENT, EXECUTION, FRONTDOOR, Kind, SHARE, TUNNEL},
    session::{escaped, text},
};

/// Names that are asked for, so that a list of very many executions does not take a request for each. Later ones have ids.
const MOST: usize = 500;

/// What an execution can be about, by `resourceType`. Others have no name.
const TYPES: &[(&str, &Kind)] = &[
    ("frontdoor", &FRONTDOOR),
    ("environment", &ENVIRONMENT),
    ("agent", &AGENT),
    ("ipsec-tunnel", &TUNNEL),
    ("ipsec-share", &SHARE),
    ("api-account", &ACCOUNT),
];

/// Each is asked for once; what is not found has its id alone.
pub(crate) struct ReferenceNames<'a> {
    session: &'a Session,
    is_execution: bool,
    /// The property that has the id, that of the name, and the kind of what is named.
    references: Vec<(&'static str, &'static str, &'static Kind)>,
    names: Mutex<BTreeMap<String, Option<String>>>,
}

impl<'a> ReferenceNames<'a> {
    /// `is_wide`: as a table of the kind is printed, if one is.
    pub(crate) fn of(session: &'a Session, kind: &Kind, is_wide: Option<bool>) -> Self {
        let mut references = Vec::new();
        let is_share = kind.name == SHARE.name && is_wide == Some(true);
        if is_share || (kind.name == AGENT.name && is_wide.is_some()) {
            references.push(("envZId", "environment", &ENVIRONMENT));
        }
        if is_share {
            references.push(("ipsecTunnelId", "tunnel", &TUNNEL));
        }
        let is_execution = kind.name == EXECUTION.name && is_wide.is_some();
        Self { session, is_execution, references, names: Mutex::default() }
    }

    pub(crate) async fn named(&self, mut resource: Value) -> Value {
        for (id, name, kind) in &self.references {
            if let Some(known) = self.known(kind, text(&resource, id)).await {
                resource[*name] = known.into();
            }
        }
        if self.is_execution {
            let kind =
                TYPES.iter().find(|(name, _)| resource["resourceType"] == *name).map(|(_, kind)| *kind);
            if let Some(kind) = kind {
                // As it was at that time. Older records and servers have none.
                let name = match text(&resource, "resourceName") {
                    "" => self.known(kind, text(&resource, "resourceId")).await,
                    recorded => Some(recorded.to_owned()),
                };
                if let Some(name) = name {
                    resource["resource"] = format!("{} {name}", kind.name).into();
                }
            }
            if text(&resource, "actorName").is_empty()
                && text(&resource, "actor").starts_with("acc-")
                && let Some(known) = self.known(&ACCOUNT, text(&resource, "actor")).await
            {
                resource["actorName"] = known.into();
            }
        }
        resource
    }

    async fn known(&self, kind: &Kind, id: &str) -> Option<String> {
        let mut names = self.names.lock().await;
        if let Some(known) = names.get(id) {
            return known.clone();
        }
        if id.is_empty() || names.len() >= MOST {
            return None;
        }
        let found = self.find(kind, id).await;
        names.insert(id.to_owned(), found.clone());
        found
    }

    async fn find(&self, kind: &Kind, id: &str) -> Option<String> {
        let (client, list) = (&self.session.client, self.session.list_path(kind).await.ok()?);
        // A share names its environment by the short id.
        let found = match kind.name == ENVIRONMENT.name && !id.starts_with("env-") {
            true => {
                let query = [("zId".to_owned(), id.to_owned())];
                let all: Vec<_> = client.list(&list, &query, Some(1)).try_collect().await.ok()?;
                all.into_iter().next()?
            }
            false => client.get(&format!("{list}/{}", escaped(id)), &[]).await.ok()?,
        };
        Some(text(&found, kind.label).to_owned()).filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_execution_is_about_is_a_type_of_the_api() {
        let types = &crate::schema::named("Execution")["properties"]["resourceType"]["enum"];
        let types: Vec<_> = types.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(TYPES.iter().all(|(name, _)| types.contains(name)), "{types:?}");
    }
}
