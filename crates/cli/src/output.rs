//! What a command prints: data to standard output, in the form that was asked for.

use std::io::{self, Write};

use futures_util::{Stream, TryStreamExt as _, pin_mut};
use serde_json::{Map, Value};
use wicketgate_client::Failure;
use wicketgate_system::terminal::{printable_json, printable_lines};

use crate::{
    failed::Failed,
    kind::{Column, Kind},
    query,
    screen::Screen,
    table::{Table, cell},
};

/// The form of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people on a terminal; tab-separated without headings elsewhere.
    Table {
        is_wide: bool,
    },
    Json,
    Yaml,
    /// The name, or the id, one a line.
    Name,
    /// Only these properties, as JSON.
    Fields(Vec<String>),
}

/// What to print, and how.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) form: Form,
    /// A jq program that the JSON goes through.
    pub(crate) jq: Option<String>,
    pub(crate) screen: Screen,
}

impl Output {
    pub(crate) fn new(form: Form, jq: Option<String>) -> Self {
        Self { form, jq, screen: Screen::of_standard_output() }
    }

    /// For people, whether all columns are wanted; `None` for a program.
    pub(crate) fn is_wide(&self) -> Option<bool> {
        match self.form {
            Form::Table { is_wide } if self.jq.is_none() => Some(is_wide),
            _ => None,
        }
    }

    /// Prints a list as it arrives. Returns how many resources there were.
    pub(crate) async fn list(
        &self,
        kind: &Kind,
        resources: impl Stream<Item = Result<Value, Failure>>,
    ) -> Result<usize, Failed> {
        pin_mut!(resources);
        let mut out = io::BufWriter::new(io::stdout().lock());
        let mut count = 0;
        match &self.form {
            Form::Table { is_wide } if self.jq.is_none() => {
                let mut table = Table::new(columns(kind, *is_wide), &self.screen);
                while let Some(resource) = resources.try_next().await? {
                    count += 1;
                    table.row(&resource, &mut out)?;
                }
                table.end(&mut out)?;
            }
            Form::Name if self.jq.is_none() => {
                while let Some(resource) = resources.try_next().await? {
                    count += 1;
                    writeln!(out, "{}", name(kind, &resource))?;
                }
            }
            Form::Json | Form::Fields(_) if self.jq.is_none() => {
                while let Some(resource) = resources.try_next().await? {
                    let chosen = self.chosen(resource)?;
                    out.write_all(if count == 0 { b"[\n" } else { b",\n" })?;
                    count += 1;
                    out.write_all(printable_json(&chosen.to_string()).as_bytes())?;
                }
                out.write_all(if count == 0 { b"[]\n" } else { b"\n]\n" })?;
            }
            _ => {
                let mut all = Vec::new();
                while let Some(resource) = resources.try_next().await? {
                    all.push(self.chosen(resource)?);
                }
                count = all.len();
                self.value(&Value::Array(all), &mut out)?;
            }
        }
        out.flush()?;
        Ok(count)
    }

    /// Prints one resource.
    pub(crate) fn one(&self, kind: &Kind, resource: &Value) -> Result<(), Failed> {
        let mut out = io::stdout().lock();
        match &self.form {
            Form::Table { .. } if self.jq.is_none() => details(resource, "", &mut out)?,
            Form::Name if self.jq.is_none() => writeln!(out, "{}", name(kind, resource))?,
            _ => self.value(&self.chosen(resource.clone())?, &mut out)?,
        }
        Ok(())
    }

    /// Prints JSON or YAML, or what the jq program makes of it.
    pub(crate) fn value(&self, value: &Value, out: &mut impl Write) -> Result<(), Failed> {
        if let Some(program) = &self.jq {
            for result in query::run(program, value)? {
                match result {
                    // As jq -r: what follows in a pipe wants the text.
                    Value::String(text) if self.screen.is_terminal => {
                        writeln!(out, "{}", printable_lines(&text))?
                    }
                    Value::String(text) => writeln!(out, "{text}")?,
                    other => writeln!(out, "{}", printable_json(&other.to_string()))?,
                }
            }
            return Ok(());
        }
        match self.form {
            Form::Yaml => {
                let text =
                    serde_saphyr::to_string(value).map_err(|error| Failed::other(error.to_string()))?;
                // YAML escapes in some of its strings only.
                write!(out, "{}", if self.screen.is_terminal { printable_lines(&text) } else { text })?;
            }
            _ => {
                let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
                writeln!(out, "{}", printable_json(&text))?;
            }
        }
        Ok(())
    }

    /// The properties that were asked for.
    fn chosen(&self, resource: Value) -> Result<Value, Failed> {
        let Form::Fields(fields) = &self.form else { return Ok(resource) };
        let mut chosen = Map::new();
        for field in fields {
            let pointer = format!("/{}", field.replace('.', "/"));
            // An optional property that is absent is null, as in gh.
            chosen.insert(field.clone(), resource.pointer(&pointer).cloned().unwrap_or(Value::Null));
        }
        if chosen.is_empty() || chosen.values().all(Value::is_null) {
            let all: Vec<_> = resource.as_object().into_iter().flat_map(|o| o.keys().cloned()).collect();
            return Err(Failed::usage(format!("--json: choose of {}", all.join(","))));
        }
        Ok(Value::Object(chosen))
    }
}

fn columns(kind: &Kind, is_wide: bool) -> Vec<&'static Column> {
    kind.columns.iter().filter(|column| is_wide || !column.is_wide).collect()
}

/// As people call it.
pub(crate) fn name(kind: &Kind, resource: &Value) -> String {
    let name = Some(&resource[kind.label]).filter(|name| name.is_string());
    cell(name.unwrap_or(&resource[kind.id]))
}

/// One property a line, those of objects indented.
fn details(value: &Value, indent: &str, out: &mut impl Write) -> io::Result<()> {
    let Some(object) = value.as_object() else { return writeln!(out, "{indent}{}", cell(value)) };
    let width = object.keys().map(String::len).max().unwrap_or_default() + 1;
    for (name, value) in object.iter().filter(|(name, value)| *name != "_links" && !value.is_null()) {
        let inner = format!("{indent}  ");
        match value {
            Value::Object(_) => {
                writeln!(out, "{indent}{name}:")?;
                details(value, &inner, out)?;
            }
            Value::Array(all) if all.iter().any(Value::is_object) => {
                writeln!(out, "{indent}{name}:")?;
                for one in all {
                    details(one, &inner, out)?;
                    writeln!(out)?;
                }
            }
            _ => writeln!(out, "{indent}{:<width$} {}", format!("{name}:"), cell(value))?,
        }
    }
    Ok(())
}
