//! A plan is carried out step by step. If one fails, what was done and what was not is told.

use futures_util::future::try_join_all;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};
use wicketgate_client::Method;

use super::{
    difference::{is_as_planned, patch},
    document::{Document, REFERENCES, SECRET_OUT},
    plan::{Deed, Plan, Step},
    references::References,
};
use crate::{
    context::Session,
    failed::Failed,
    kind::Kind,
    peer_address::explained,
    say::say,
    secret_out::SecretOut,
    session::{escaped, text},
    wait::Patience,
};

const CHANGED: &str = "it has changed since the plan was made: apply again";

/// Takes all steps, and waits until they have taken effect.
pub(crate) async fn carry_out(
    session: &Session,
    plan: &Plan,
    references: References,
    patience: Patience,
) -> Result<(), Failed> {
    let secrets: Vec<_> = plan.steps.iter().map(secret_out).collect::<Result<_, _>>()?;
    let (begin, written, whole) = (Instant::now(), Vec::new(), Mutex::new(()));
    let mut work = Work { session, references, patience, begin, written, whole: &whole, has_deleted: false };
    let mut done = 0;
    let all = async {
        for (step, secret) in plan.steps.iter().zip(secrets) {
            work.take(step, secret).await.map_err(|failed| failed.about(&named(step)))?;
            done += 1;
        }
        work.settle().await
    };
    let result = session.unless_interrupted(&whole, all).await;
    result.map_err(|failed| failed.with(&left(plan, done, work.has_deleted)))
}

/// `None`: the step writes no secret.
fn secret_out(step: &Step) -> Result<Option<SecretOut<'_>>, Failed> {
    step.secret_file().map(|path| SecretOut::file(&step.name, SECRET_OUT, path)).transpose()
}

fn named(step: &Step) -> String {
    format!("{} {} {}", step.deed.word(), step.kind.name, step.name)
}

/// What was done and what was not. `has_deleted`: the first step that was not has deleted its resource.
fn left(plan: &Plan, done: usize, has_deleted: bool) -> String {
    let list = |steps: &[Step]| match steps {
        [] => "nothing".to_owned(),
        _ => steps.iter().map(named).collect::<Vec<_>>().join(", "),
    };
    let (before, after) = plan.steps.split_at(done);
    if after.is_empty() {
        return format!("Everything was applied: {}.", list(before));
    }
    let half = after.first().filter(|_| has_deleted).map(named);
    let half = half.map_or_else(String::new, |step| format!(" Half done: {step}, which is deleted only."));
    format!(
        "Done: {}.\nNot done: {}.{half} A second apply goes on from what there is then.",
        list(before),
        list(after)
    )
}

struct Work<'a> {
    session: &'a Session,
    references: References,
    patience: Patience,
    begin: Instant,
    /// What settles, and where it is.
    written: Vec<(&'static Kind, String)>,
    /// Held by what an interruption must not divide.
    whole: &'a Mutex<()>,
    /// What the current step replaces.
    has_deleted: bool,
}

impl Work<'_> {
    async fn take(&mut self, step: &Step, secret: Option<SecretOut<'_>>) -> Result<(), Failed> {
        let list = self.session.list_path(step.kind).await?;
        let path = format!("{list}/{}", escaped(text(&step.present, step.kind.id)));
        match (step.deed, &step.document) {
            (Deed::Create, Some(document)) => self.create(&list, document, secret).await?,
            (Deed::Update, Some(_)) => self.update(path, step).await?,
            (Deed::Replace, Some(document)) => {
                self.delete(&path, step).await?;
                self.has_deleted = true;
                self.create(&list, document, secret).await?;
                self.has_deleted = false;
            }
            _ => self.delete(&path, step).await?,
        }
        say(&format!("✓ {}", named(step)));
        Ok(())
    }

    async fn create(
        &mut self,
        list: &str,
        document: &Document,
        secret: Option<SecretOut<'_>>,
    ) -> Result<(), Failed> {
        let mut body = Value::Object(document.properties.clone());
        self.refer(&mut body)?;
        if let Some((_, key)) = &document.key {
            body["preSharedKey"] = key.expose_secret().into();
        }
        let made = match secret {
            Some(secret) => secret.create(self.session, (list, &body), self.whole, "apply again").await?,
            None => {
                self.session.client.write(Method::POST, list, Some(&body), None).await.map_err(explained)?
            }
        };
        self.references.learn(document.kind, &made);
        self.note(document.kind, format!("{list}/{}", text(&made, document.kind.id)));
        Ok(())
    }

    async fn update(&mut self, path: String, step: &Step) -> Result<(), Failed> {
        let (now, etag) = self.session.client.get_tagged(&path).await?;
        if !is_as_planned(&step.changes, &now) {
            return Err(Failed::other(CHANGED));
        }
        let mut body = patch(&step.changes);
        self.refer(&mut body)?;
        let changed = self.session.client.write(Method::PATCH, &path, Some(&body), etag.as_deref()).await;
        changed.map_err(explained)?;
        self.note(step.kind, path);
        Ok(())
    }

    async fn delete(&mut self, path: &str, step: &Step) -> Result<(), Failed> {
        let (now, etag) = self.session.client.get_tagged(path).await?;
        // Its tags, too, may have been why it was to be deleted.
        if now["updatedAt"] != step.present["updatedAt"] {
            return Err(Failed::other(CHANGED));
        }
        self.session.client.write(Method::DELETE, path, None, etag.as_deref()).await?;
        if step.kind.settles {
            // What comes next may need its name, its port or its address.
            self.session.settled(step.kind, path, self.rest()).await?;
        }
        Ok(())
    }

    /// Replaces names by what they stand for.
    fn refer(&self, body: &mut Value) -> Result<(), Failed> {
        for (property, kind, _) in REFERENCES {
            let Some(said) = body[*property].as_str() else { continue };
            match self.references.value(property, said) {
                Some(value) => body[*property] = value.clone(),
                None if self.references.has(property, said) => {}
                None => return Err(Failed::other(format!("there is no {} {said}", kind.name))),
            }
        }
        Ok(())
    }

    fn note(&mut self, kind: &'static Kind, path: String) {
        if kind.settles {
            self.written.push((kind, path));
        }
    }

    async fn settle(&self) -> Result<(), Failed> {
        if self.patience.waits {
            // All at a time: the first that fails ends the wait.
            let rest = self.rest();
            let settled = self.written.iter().map(|(kind, path)| self.session.settled(kind, path, rest));
            try_join_all(settled).await?;
        }
        Ok(())
    }

    /// What is left of the time.
    fn rest(&self) -> Patience {
        Patience { timeout: self.patience.timeout.saturating_sub(self.begin.elapsed()), ..self.patience }
    }
}
