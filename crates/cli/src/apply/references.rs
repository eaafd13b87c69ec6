//! Names that documents use for other resources, and the values that the API wants instead.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use serde_json::Value;

use super::document::{Document, REFERENCES};
use crate::{context::Session, failed::Failed, kind::Kind, session::text};

/// Names of other resources, with the values that properties have for them.
#[derive(Debug, Default)]
pub(crate) struct References(BTreeMap<(&'static str, String), Value>);

impl References {
    /// The value of a property that names another resource; `None` while that does not exist.
    pub(crate) fn value(&self, property: &'static str, said: &str) -> Option<&Value> {
        self.0.get(&(property, said.to_owned()))
    }

    /// Whether a resource of the file or the server has this value.
    pub(crate) fn has(&self, property: &str, value: &str) -> bool {
        self.0.iter().any(|((name, _), known)| *name == property && *known == value)
    }

    /// Takes note of a resource that was created.
    pub(crate) fn learn(&mut self, kind: &Kind, resource: &Value) {
        for (property, _, id) in REFERENCES.iter().filter(|(_, referred, _)| referred.name == kind.name) {
            self.0.insert((property, text(resource, kind.label).to_owned()), resource[id].clone());
        }
    }
}

/// What the names of other resources stand for. Those that are in the file may not exist yet.
pub(crate) async fn references(
    session: &Session,
    documents: &[Document],
    faults: &mut Vec<String>,
) -> Result<References, Failed> {
    let mut known = References::default();
    for (property, kind, id) in REFERENCES {
        let mut checked = Vec::new();
        for document in documents {
            let Some(said) = document.properties.get(*property).and_then(Value::as_str) else { continue };
            if checked.contains(&said) {
                continue;
            }
            checked.push(said);
            let list = session.list_path(kind).await?;
            let mut found = Vec::new();
            for filter in [*id, kind.label] {
                // An id of another form is no filter.
                let query = [(filter.to_owned(), said.to_owned())];
                let one: Result<Vec<Value>, _> =
                    session.client.list(&list, &query, Some(2)).try_collect().await;
                match one {
                    Ok(all) => found.extend(all),
                    Err(failure) if failure.is_wrong_request() => {}
                    Err(failure) => return Err(failure.into()),
                }
            }
            found.sort_by_key(|one| one["id"].to_string());
            found.dedup_by_key(|one| one["id"].clone());
            if found.len() > 1 {
                let (place, kinds) = (document.place_of(property), kind.plural);
                faults.push(format!("{place}: {property}: several {kinds} are called {said}: write the id"));
                continue;
            }
            let is_planned = documents.iter().any(|one| one.kind.name == kind.name && one.name == said);
            match found.first() {
                Some(resource) => {
                    known.0.insert((property, said.to_owned()), resource[id].clone());
                }
                None if is_planned => {}
                None => faults.push(format!(
                    "{}: {property}: there is no {} {said}, and none in the file",
                    document.place_of(property),
                    kind.name
                )),
            }
        }
    }
    Ok(known)
}
