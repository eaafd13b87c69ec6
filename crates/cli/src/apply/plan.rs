//! The difference between what a file says and what there is: the steps, in the order in which they are taken.

use std::path::Path;

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use super::{
    difference::{Change, changes},
    document::{Document, refused},
    effect::{self, Effect},
    references::{References, references},
};
use crate::{
    context::Session,
    failed::Failed,
    kind::{KINDS, Kind, SHARE, TUNNEL},
    schema,
    session::{escaped, text},
};

/// Names in one request: a query has at most 200 parameters.
const NAMES: usize = 100;

/// What is done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Create,
    Update,
    /// Deleted, and created again.
    Replace,
    Delete,
}

/// One resource that is not as it should be.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) deed: Deed,
    pub(crate) kind: &'static Kind,
    pub(crate) name: String,
    /// What there is; null for a new resource.
    pub(crate) present: Value,
    /// What there should be; none if it is deleted.
    pub(crate) document: Option<Document>,
    pub(crate) changes: Vec<Change>,
    pub(crate) effects: Vec<&'static Effect>,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) unchanged: usize,
    /// What the documents say without an effect.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// Reads what there is, and compares. `prune`: a tag and its value, by which what is not in the file is deleted.
    pub(crate) async fn of(
        session: &Session,
        documents: Vec<Document>,
        prune: Option<(&str, &str)>,
    ) -> Result<(Self, References), Failed> {
        let present = present(session, &documents).await?;
        let mut faults = Vec::new();
        let references = references(session, &documents, &mut faults).await?;
        let mut kept: Vec<_> = present.iter().map(|one| one["id"].clone()).collect();
        kept.retain(|id| !id.is_null());
        let (mut steps, mut unchanged, mut notes) = (Vec::new(), 0, Vec::new());
        for (document, present) in documents.into_iter().zip(present) {
            notes.extend(ineffective(&document, &present));
            faults.extend(impossible(&document, &present));
            let lost = lost_secret(&document);
            match step(document, present, &references) {
                Some(step) => steps.push(step),
                None => {
                    unchanged += 1;
                    notes.extend(lost);
                }
            }
        }
        refused(faults)?;
        if let Some((key, value)) = prune {
            steps.extend(pruned(session, key, value, &kept).await?);
        }
        let moved: Vec<_> = steps.iter().map(|step| step.present["ipsecTunnelId"].clone()).collect();
        steps
            .sort_by_key(|step| rank(step, step.deed == Deed::Delete && moved.contains(&step.present["id"])));
        Ok((Self { steps, unchanged, notes }, references))
    }
}

/// The order: what frees names and ports, what others refer to, those, and what they referred to before.
fn rank(step: &Step, is_referred_to: bool) -> usize {
    let place = KINDS.iter().position(|kind| kind.name == step.kind.name).unwrap_or_default();
    let last = KINDS.len();
    match (step.deed, step.kind.name) {
        (Deed::Delete, "share") => 0,
        (Deed::Delete, _) if !is_referred_to => 1,
        (Deed::Delete, _) => 2 + last,
        _ => 2 + place,
    }
}

fn step(document: Document, present: Value, references: &References) -> Option<Step> {
    let changes = changes(&document, &present, references);
    if !present.is_null() && changes.is_empty() {
        return None;
    }
    let kind = document.kind;
    let deed = match (present.is_null(), kind.update) {
        (true, _) => Deed::Create,
        (false, Some(_)) => Deed::Update,
        (false, None) => Deed::Replace,
    };
    let effects = match deed {
        Deed::Update => {
            let mut all: Vec<&Effect> = Vec::new();
            for effect in changes.iter().filter_map(|c| effect::of_change(kind.name, &c.property, &c.new)) {
                if !all.iter().any(|known| known.says == effect.says) {
                    all.push(effect);
                }
            }
            all
        }
        Deed::Replace => vec![&effect::REPLACEMENT],
        Deed::Create | Deed::Delete => Vec::new(),
    };
    Some(Step {
        deed,
        kind,
        name: document.name.clone(),
        present,
        document: Some(document),
        changes,
        effects,
    })
}

/// What a document cannot undo.
fn ineffective(document: &Document, present: &Value) -> Option<String> {
    let property = "loadBalancerIp";
    let is_kept = !present.is_null() && document.properties.get(property)?.is_null();
    is_kept.then(|| {
        let (place, kept) = (document.place_of(property), text(present, property));
        format!("{place}: {property}: null changes nothing, since the server keeps {kept}: write the address to have")
    })
}

/// The secret of an account that exists, if its file does not.
fn lost_secret(document: &Document) -> Option<String> {
    let file = document.secret_file.as_ref().filter(|file| !Path::new(file).exists())?;
    let Document { place, name, .. } = document;
    Some(format!(
        "{place}: account {name} exists, and its secret is not in {file}: put it there, or run `wicketgate account delete \
         {name}` and apply again for a new one"
    ))
}

/// What the server would refuse, as far as it can be known before.
fn impossible(document: &Document, present: &Value) -> Vec<String> {
    let Document { kind, name, place, properties, .. } = document;
    let mut faults = Vec::new();
    if present["status"] == "DELETING" {
        faults.push(format!("{place}: {} {name} is being deleted: apply again when it is gone", kind.name));
    }
    match (present.is_null(), kind.create) {
        (true, None) => faults.push(format!(
            "{place}: there is no {} {name}, and an agent has to make it: `wicketgate agent enroll`",
            kind.name
        )),
        (true, Some(schema)) => {
            let missing = schema::required(schema).filter(|property| !properties.contains_key(*property));
            faults
                .extend(missing.map(|p| format!("{place}: {p} is missing, which a new {} needs", kind.name)));
        }
        (false, _) => {
            for property in ["locationId", "organizationId"].into_iter().filter(|_| kind.name != "share") {
                let (old, new) = (&present[property], properties.get(property));
                if kind.update.is_some() && new.is_some_and(|new| new != old) {
                    let (at, old) = (document.place_of(property), text(present, property));
                    faults.push(format!("{at}: {property} cannot be changed from {old}: use another name"));
                }
            }
        }
    }
    if kind.name == "account" && document.secret_file.is_none() {
        faults
            .push(format!("{place}: clientSecretFile is missing: the file that a new secret is written to"));
    }
    faults
}

/// What there is of each document; null for what there is not.
async fn present(session: &Session, documents: &[Document]) -> Result<Vec<Value>, Failed> {
    let mut found = vec![Value::Null; documents.len()];
    for kind in KINDS {
        let list = match documents.iter().any(|one| one.kind.name == kind.name) {
            true => session.list_path(kind).await?,
            false => continue,
        };
        let (by_id, by_name): (Vec<_>, Vec<_>) = (0..documents.len())
            .filter(|n| documents[*n].kind.name == kind.name)
            .partition(|n| documents[*n].id.is_some());
        for n in by_id {
            let id = documents[n].id.as_deref().unwrap_or_default();
            let path = format!("{list}/{}", escaped(id));
            found[n] =
                session.client.get(&path, &[]).await.map_err(|failure| match failure.is_not_found() {
                    true => Failed::usage(format!(
                        "{}: there is no {} {id}: leave out {} to create it\nNothing was changed.",
                        documents[n].place, kind.name, kind.id
                    )),
                    false => failure.into(),
                })?;
        }
        for part in by_name.chunks(NAMES) {
            let query: Vec<_> =
                part.iter().map(|n| (kind.label.to_owned(), documents[*n].name.clone())).collect();
            let all: Vec<_> = session.client.list(&list, &query, None).try_collect().await?;
            for n in part {
                let document = &documents[*n];
                let mut named = all.iter().filter(|one| text(one, kind.label) == document.name);
                found[*n] = named.next().cloned().unwrap_or_default();
                if named.next().is_some() {
                    return Err(Failed::usage(format!(
                        "{}: several {} are called {}: add {}\nNothing was changed.",
                        document.place, kind.plural, document.name, kind.id
                    )));
                }
            }
        }
    }
    Ok(found)
}

/// What has a tag and is not in the file.
async fn pruned(session: &Session, key: &str, value: &str, kept: &[Value]) -> Result<Vec<Step>, Failed> {
    let mut steps = Vec::new();
    for kind in [&SHARE, &TUNNEL] {
        let query = [(format!("tag.{key}"), value.to_owned())];
        let list = session.list_path(kind).await?;
        let all: Vec<_> = session.client.list(&list, &query, None).try_collect().await?;
        // Also where something on the way has dropped the filter.
        let has_tag = |one: &Value| one["tags"][key] == value;
        let left = all
            .into_iter()
            .filter(|one| has_tag(one) && !kept.contains(&one["id"]) && one["status"] != "DELETING");
        steps.extend(left.map(|present| Step {
            deed: Deed::Delete,
            kind,
            name: text(&present, kind.label).to_owned(),
            present,
            document: None,
            changes: Vec::new(),
            effects: effect::of_deletion(kind.name).into_iter().collect(),
        }));
    }
    Ok(steps)
}

impl Deed {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }
}

impl Step {
    /// The file that the secret of the account is written to.
    pub(crate) fn secret_file(&self) -> Option<&str> {
        self.document.as_ref()?.secret_file.as_deref()
    }
}

impl Plan {
    /// For programs.
    pub(crate) fn as_json(&self) -> Value {
        let steps = self.steps.iter().map(|step| {
            let says: Vec<_> = step.effects.iter().map(|effect| effect.says).collect();
            let changes = step.changes.iter();
            let mut shown = json!({
                "action": step.deed.word(),
                "kind": step.kind.name,
                "name": step.name,
                "changes": changes.map(|c| json!({"property": c.property, "old": c.old, "new": c.new})).collect::<Vec<_>>(),
                "effects": says,
                "cutsConnections": step.effects.iter().any(|effect| effect.cuts),
                "needsSiteConfiguration": step.effects.iter().any(|effect| effect.reconfigures),
            });
            if let Some(file) = step.secret_file() {
                shown["clientSecretFile"] = file.into();
            }
            shown
        });
        json!({"steps": steps.collect::<Vec<_>>(), "unchanged": self.unchanged})
    }
}
