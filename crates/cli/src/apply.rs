//! `apply`: makes the resources of a Frontdoor what a file says. It reads what there is, shows a plan, asks, and carries it out.
//!
//! A property that the file leaves out stays as it is, so that a second run changes nothing.

mod carry_out;
mod difference;
mod document;
mod effect;
mod plan;
mod references;
mod show;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::ArgMatches;

use crate::{
    arguments::{output, patience},
    context::Session,
    failed::Failed,
    output::Form,
    say::say,
    wait::Patience,
};
use plan::Plan;

pub(crate) async fn apply(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let files: Vec<String> = matches.get_many("file").into_iter().flatten().cloned().collect();
    let (only_plan, yes) = (matches.get_flag("plan"), matches.get_flag("yes"));
    let reads_input = files.iter().any(|file| file == "-");
    // Who agrees has seen the whole plan.
    let shows_plan = io::stdout().is_terminal() && output(matches).jq.is_none();
    let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal() && shows_plan && !reads_input;
    if !only_plan && !yes && !can_ask {
        return Err(Failed::usage(
            "without a terminal, apply cannot ask: give --yes, or --plan to see what would change",
        ));
    }
    let prune = matches.get_one::<String>("prune").map(|tag| {
        let tag = tag.strip_prefix("tag.").unwrap_or(tag);
        tag.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty())
    });
    if prune == Some(None) {
        return Err(Failed::usage("--prune: write KEY=VALUE, such as managed-by=git"));
    }
    let documents = document::read(&files)?;
    let (plan, references) = Plan::of(session, documents, prune.flatten()).await?;
    plan.notes.iter().for_each(|note| say(note));
    let output = output(matches);
    let mut out = io::stdout().lock();
    match output.form {
        Form::Table { .. } if output.jq.is_none() => show::draw(&plan, &output.screen, &mut out)?,
        _ => output.value(&plan.as_json(), &mut out)?,
    }
    out.flush()?;
    drop(out);
    if plan.steps.is_empty() {
        return Ok(());
    }
    if only_plan {
        return Err(Failed::Differs);
    }
    if !yes && !is_agreed()? {
        return Err(Failed::other("nothing was changed"));
    }
    // Later steps need what earlier ones made, so it waits also where no person does.
    let patience = Patience { waits: !matches.get_flag("no-wait"), ..patience(matches) };
    carry_out::carry_out(session, &plan, references, patience).await?;
    say(if patience.waits { "Applied." } else { "Applied; it takes effect soon." });
    Ok(())
}

fn is_agreed() -> Result<bool, Failed> {
    let mut err = io::stderr();
    write!(err, "Apply this? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
