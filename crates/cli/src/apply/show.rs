//! A plan as people read it: each resource with its changes, and with what they do to others.

use std::{
    io::{self, Write},
    path::Path,
};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::plan::{Deed, Plan, Step};
use crate::{screen::Screen, table::cell};

/// Draws a plan.
pub(crate) fn draw(plan: &Plan, screen: &Screen, out: &mut impl Write) -> io::Result<()> {
    for step in &plan.steps {
        draw_step(step, screen, out)?;
        writeln!(out)?;
    }
    let count = |deed| plan.steps.iter().filter(|step| step.deed == deed).count();
    writeln!(
        out,
        "Plan: {} to create, {} to update, {} to replace, {} to delete, {} unchanged.",
        count(Deed::Create),
        count(Deed::Update),
        count(Deed::Replace),
        count(Deed::Delete),
        plan.unchanged
    )
}

fn draw_step(step: &Step, screen: &Screen, out: &mut impl Write) -> io::Result<()> {
    let (mark, colour) = match step.deed {
        Deed::Create => ("+", AnsiColor::Green),
        Deed::Update => ("~", AnsiColor::Yellow),
        Deed::Replace => ("±", AnsiColor::Red),
        Deed::Delete => ("-", AnsiColor::Red),
    };
    let styled = |colour: AnsiColor| match screen.has_colours {
        true => Style::new().fg_color(Some(colour.into())),
        false => Style::new(),
    };
    let (style, warning) = (styled(colour), styled(AnsiColor::Red));
    let name = cell(&step.name.as_str().into());
    writeln!(out, "{style}{mark} {} {} {name}{style:#}", step.deed.word(), step.kind.name)?;
    for change in &step.changes {
        let (property, new) = (cell(&change.property.as_str().into()), value(&change.said));
        match step.deed {
            Deed::Create => writeln!(out, "    {property}: {new}")?,
            _ => writeln!(out, "    {property}: {} → {new}", value(&change.old))?,
        }
    }
    if let Some(file) = step.secret_file() {
        let how = if Path::new(file).exists() { "overwritten" } else { "created" };
        writeln!(out, "    clientSecretFile: {} ({how})", cell(&file.into()))?;
    }
    for effect in &step.effects {
        let (mark, style) = if effect.cuts { ("!", warning) } else { ("*", Style::new()) };
        writeln!(out, "  {style}{mark} {}{style:#}", effect.says)?;
    }
    if step.effects.iter().any(|effect| effect.reconfigures) {
        writeln!(
            out,
            "  {warning}! The site needs a new configuration: wicketgate tunnel config {name} --format DEVICE{warning:#}"
        )?;
    }
    Ok(())
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        other => cell(other),
    }
}
