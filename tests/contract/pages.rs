//! The commands of the pages are those of the programs: subcommands and flags exist, and so do the paths that are called.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use clap::error::ErrorKind;
use serde_json::Value;

use crate::harness::{agent_executable, wicketgate_executable};

/// Variables that the README defines for its calls, and the API's address in other pages.
const BASES: &[(&str, &str)] =
    &[("$fd", "/frontdoor/v2/$fd"), ("$api", "/frontdoor/v2"), ("http://127.0.0.1:8480", "")];
/// Subcommands of the programs that are no verbs of the command line.
const OWN: &[&str] = &[
    "up",
    "server",
    "down",
    "config",
    "demo",
    "doctor",
    "backup",
    "restore",
    "db",
    "secrets",
    "explain",
    "completion",
];

/// The commands in the blocks of a page that are marked `sh`: a line that ends with a backslash continues.
fn lines(page: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut all = page.lines();
    while let Some(line) = all.next() {
        if line.trim() == "```sh" {
            let block: Vec<_> = all.by_ref().take_while(|line| line.trim() != "```").collect();
            lines.extend(block.join("\n").replace("\\\n", " ").lines().map(str::to_owned));
        }
    }
    lines
}

/// The calls of `program` in a line: its words up to what ends a command in a shell.
fn calls(line: &str, program: &str) -> Vec<Vec<String>> {
    let begins = line.match_indices(program).filter(|(at, _)| {
        let before = line[..*at].trim_end();
        (before.is_empty() || before.ends_with([';', '(', '|', '&']))
            && line[at + program.len()..].starts_with(' ')
    });
    begins.map(|(at, _)| words(&line[at..])).collect()
}

fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in command.chars() {
        match (quote, c) {
            (Some(q), _) if q == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ') => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            (None, '|' | '>' | ';' | ')' | '&') => break,
            (None, '#') if word.is_empty() => break,
            _ => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// The pages, by their names.
fn pages() -> Result<BTreeMap<String, String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = BTreeMap::from([("README.md".to_owned(), fs::read_to_string(root.join("README.md"))?)]);
    for entry in fs::read_dir(root.join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap_or_default().display().to_string();
            pages.insert(format!("docs/{name}"), fs::read_to_string(&path)?);
        }
    }
    Ok(pages)
}

/// What is wrong with a verb of the command line. In prose, arguments are left out.
fn wrong_verb(words: &[String], is_prose: bool) -> Option<String> {
    let command = clap::Command::new("wicketgate").subcommands(wicketgate_cli::commands());
    let error = command.try_get_matches_from(words).err()?;
    let is_fine = match error.kind() {
        ErrorKind::DisplayHelp => true,
        ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => is_prose,
        _ => false,
    };
    (!is_fine)
        .then(|| format!("{}: {}", words.join(" "), error.to_string().lines().next().unwrap_or_default()))
}

/// What is wrong with another call of a program: a flag that its help does not name.
fn wrong_flags(executable: &Path, words: &[String]) -> Result<Option<String>> {
    let verbs: Vec<_> =
        words[1..].iter().take_while(|word| word.chars().all(|c| c.is_ascii_lowercase())).collect();
    let help = |verbs: &[&String]| -> Result<String> {
        let help = Command::new(executable).args(verbs).arg("--help").output()?;
        Ok(String::from_utf8_lossy(&help.stdout).into_owned())
    };
    let mut shown = help(&verbs[..verbs.len().min(1)])?;
    if shown.contains("\nCommands:") && verbs.len() > 1 {
        shown = help(&verbs[..2])?;
    }
    let help = shown;
    let known: Vec<_> = help.split_whitespace().map(|word| word.trim_matches(['[', ']', ',', '`'])).collect();
    let wrong = words.iter().find(|word| word.starts_with("--") && !known.contains(&word.as_str()));
    Ok(match wrong {
        _ if !help.contains("Usage: ") => Some(format!("{}: no such command", words.join(" "))),
        Some(flag) => Some(format!("{}: {flag} is not in its help", words.join(" "))),
        None => None,
    })
}

#[test]
fn each_command_of_a_page_parses() -> Result<()> {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (page, text) in pages()? {
        let spans = text.split('`').skip(1).step_by(2).filter(|span| !span.contains(['\n', '…', '|']));
        let prose = spans.map(|span| (span.to_owned(), true));
        for (line, is_prose) in lines(&text).into_iter().map(|line| (line, false)).chain(prose) {
            for words in calls(&line, "wicketgate").into_iter().filter(|words| words.len() > 1) {
                count += 1;
                let fault = match &words[1] {
                    verb if OWN.contains(&verb.as_str()) => wrong_flags(wicketgate_executable(), &words)?,
                    _ => wrong_verb(&words, is_prose),
                };
                wrong.extend(fault.map(|fault| format!("{page}: {fault}")));
            }
            for words in calls(&line, "wicketgate-agent").into_iter().filter(|words| words.len() > 1) {
                count += 1;
                wrong.extend(
                    wrong_flags(&agent_executable()?, &words)?.map(|fault| format!("{page}: {fault}")),
                );
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(count > 60, "only {count} commands were found");
    Ok(())
}

#[test]
fn each_path_that_a_page_calls_is_in_the_document() -> Result<()> {
    let document: Value = serde_json::from_str(include_str!("../../docs/openapi.json"))?;
    let paths: Vec<_> = document["paths"].as_object().into_iter().flatten().map(|(path, _)| path).collect();
    let is_known = |called: &str| {
        let called: Vec<_> = called.split('/').collect();
        paths.iter().any(|path| {
            let parts: Vec<_> = path.split('/').collect();
            parts.len() == called.len()
                && parts.iter().zip(&called).all(|(part, is)| {
                    part == is || part.starts_with('{') == is.starts_with('$') && part.starts_with('{')
                })
        })
    };
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (page, text) in pages()? {
        for line in lines(&text) {
            let is_call = line.contains("curl ") || line.contains("call ") || line.contains("settled ");
            for word in line.split([' ', '"', ')']).filter(|_| is_call) {
                for (base, path) in BASES.iter().filter(|(base, _)| word.starts_with(base)) {
                    let called = word.replacen(base, path, 1);
                    let called = called.split('?').next().unwrap_or_default();
                    count += 1;
                    wrong.extend((!is_known(called)).then(|| format!("{page}: {called}")));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "not in the API's document:\n{}", wrong.join("\n"));
    ensure!(count > 8, "only {count} calls were found");
    Ok(())
}
