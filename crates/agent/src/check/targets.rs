//! The assigned targets: whether the allow list permits them, and whether this host reaches them.

use super::report::{CheckStep, NOT_REACHED, Report, fail, pass, skip};
use crate::{
    allow::AllowList, assignments::Assignments, cure::cure, dial::probe, names::Names, probe::PROBES,
    state::State,
};
use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::watch, time::Instant};
use wicketgate_model::{GatewayId, SignedAssignment, Target};

/// Targets that are probed, so that a check of very many shares ends within minutes.
const MOST: usize = 1000;
/// Shares of a target that a line names.
const MOST_NAMED: usize = 3;

pub(super) async fn check(
    (state, gateway, assigned): (&State, GatewayId, &[SignedAssignment]),
    allow: watch::Receiver<Arc<AllowList>>,
    names: &Arc<Names>,
    report: &mut Report,
) {
    let list = Arc::clone(&allow.borrow());
    let assignments = match Assignments::new(state, allow) {
        Ok(assignments) => assignments,
        Err(error) => {
            report.add(CheckStep::AllowList, "targets", fail(format!("{error:#}")));
            report.add(CheckStep::Target, "targets", skip(NOT_REACHED));
            return;
        }
    };
    let (mut shares, mut refused): (BTreeMap<String, (Target, Vec<String>)>, Vec<_>) = Default::default();
    for signed in assigned {
        match assignments.take(gateway, signed, Timestamp::now()) {
            Some((share, _, Ok(served))) => {
                let of_target = shares.entry(served.target.to_string());
                let (_, names) = of_target.or_insert_with(|| (served.target, Vec::new()));
                names.push(served.name.unwrap_or_else(|| share.to_string()));
            }
            Some((share, _, Err(unfit))) => refused.push((share.to_string(), unfit.to_string())),
            None => {
                refused.push(("a share".to_owned(), "cannot be parsed: this agent may be too old".to_owned()))
            }
        }
    }
    for (share, unfit) in &refused {
        report.add(CheckStep::AllowList, share, fail(unfit.as_str()));
    }
    if refused.is_empty() {
        let permitted = match list.is_empty() {
            true => {
                skip("without --allow, every target is permitted except loopback and link-local addresses")
            }
            false => pass(format!("permits all {} assigned targets", shares.len())),
        };
        report.add(CheckStep::AllowList, "targets", permitted);
    }
    probe_all(shares, (&list, names), report).await;
}

async fn probe_all(
    shares: BTreeMap<String, (Target, Vec<String>)>,
    (allow, names): (&AllowList, &Arc<Names>),
    report: &mut Report,
) {
    let beyond = shares.len().saturating_sub(MOST);
    let is_empty = shares.is_empty();
    let probes = shares.into_iter().take(MOST).map(|(shown, (target, shares))| async move {
        let begin = Instant::now();
        let probed = probe(&target, allow, names, false).await;
        let result = match probed {
            Ok(()) => {
                pass(format!("accepts connections, after {} ms{}", begin.elapsed().as_millis(), of(&shares)))
            }
            Err(refusal) => fail(format!("{}{}; {}", refusal.text, of(&shares), cure(refusal.reason))),
        };
        (shown, result)
    });
    let results: Vec<_> = stream::iter(probes).buffered(PROBES).collect().await;
    for (target, result) in results {
        report.add(CheckStep::Target, &target, result);
    }
    if beyond > 0 {
        report.add(CheckStep::Target, &format!("{beyond} more"), skip(format!("at most {MOST} are checked")));
    }
    if is_empty {
        report.add(CheckStep::Target, "targets", skip("no share of the environment can be served"));
    }
}

/// The shares of a target.
fn of(shares: &[String]) -> String {
    let named: Vec<_> = shares.iter().take(MOST_NAMED).map(String::as_str).collect();
    match shares.len().saturating_sub(MOST_NAMED) {
        0 => format!(" (share {})", named.join(", ")),
        more => format!(" (share {}, and {more} more)", named.join(", ")),
    }
}
