//! The completions of both programs, in the shell that uses them.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{agent_executable, wicketgate_executable};

#[test]
fn completions_are_accepted_by_the_shell_and_know_every_verb() -> Result<()> {
    let complete = |program: &Path, words: &str| -> Result<String> {
        let name = program.file_name().context("no name")?.to_string_lossy();
        let function = format!("_{}", name.replace('-', "__"));
        let script = format!(
            "source <({} completion bash); COMP_WORDS=({name} {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             {function} {name} \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[*]}}\"",
            program.display()
        );
        let output = Command::new("bash").args(["-c", &script]).output()?;
        ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let program = wicketgate_executable();
    assert_eq!(complete(program, "share che")?.trim(), "check");
    ensure!(complete(program, "tunnel create --peer-")?.contains("--peer-public-ip"));
    ensure!(complete(&agent_executable()?, "start --state")?.contains("--state-dir"));
    Ok(())
}
