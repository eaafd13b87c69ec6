//! What is made from a program's definitions: completions for shells, and man pages. They name no setting of this host.

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The shells that the packages install completions for, and what stands before and after the program's name in each one's path.
const INSTALLED: &[(Shell, &str, &str)] =
    &[(Shell::Bash, "bash/", ""), (Shell::Zsh, "zsh/_", ""), (Shell::Fish, "fish/", ".fish")];

#[derive(Debug, Args)]
pub struct CompletionCommand {
    /// Whose completions. The packages install those of bash, zsh and fish
    #[arg(value_name = "bash|zsh|fish", hide_possible_values = true)]
    shell: Shell,
}

impl CompletionCommand {
    /// Prints the completions of `program`.
    ///
    /// # Errors
    /// Standard output cannot be written to. A reader that wants no more is no error.
    pub fn run(&self, program: Command) -> anyhow::Result<()> {
        match io::stdout().lock().write_all(&completions(self.shell, program)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write the completions to standard output"),
        }
    }
}

/// The verb by which the packages are made.
#[derive(Debug, Args)]
pub struct ManCommand {
    /// The directory to write man pages and completions to. Created if it does not exist
    directory: PathBuf,
}

impl ManCommand {
    /// Writes `man/PROGRAM*.1` and each shell's completions. Older files of these names are replaced.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn run(&self, program: &Command) -> anyhow::Result<()> {
        let name = program.get_name().to_owned();
        let man = self.directory.join("man");
        std::fs::create_dir_all(&man).with_context(|| format!("cannot create {}", man.display()))?;
        clap_mangen::generate_to(program.clone(), &man)
            .with_context(|| format!("cannot write man pages to {}", man.display()))?;
        for (shell, before, after) in INSTALLED {
            let file = self.directory.join(format!("{before}{name}{after}"));
            write(&file, &completions(*shell, program.clone()))?;
        }
        Ok(())
    }
}

fn write(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let written =
        file.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(file, content));
    written.with_context(|| format!("cannot write {}", file.display()))
}

fn completions(shell: Shell, mut program: Command) -> Vec<u8> {
    let (name, mut made) = (program.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, &mut program, &name, &mut made);
    if shell != Shell::Bash {
        return made;
    }
    // clap_complete 4.6 writes the hyphen of a program's name in two ways, and its subcommands are never found.
    let [wrong, right] = ["__subcmd__", "__"].map(|hyphen| name.replace('-', hyphen));
    String::from_utf8_lossy(&made).replace(&wrong, &right).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn pages_and_completions_have_the_names_that_the_packages_install() {
        let dir = tempfile::tempdir().unwrap();
        let share =
            Command::new("share").subcommand(Command::new("list").arg(Arg::new("limit").long("limit")));
        let program = Command::new("gate").subcommand(share).subcommand(Command::new("man").hide(true));
        ManCommand { directory: dir.path().join("new") }.run(&program).unwrap();
        let read = |file: &str| std::fs::read_to_string(dir.path().join("new").join(file));
        for file in ["bash/gate", "zsh/_gate", "fish/gate.fish", "man/gate-share-list.1"] {
            assert!(read(file).unwrap().contains("limit"), "{file}");
        }
        assert!(read("man/gate.1").unwrap().contains("gate\\-share(1)"), "{}", read("man/gate.1").unwrap());
        assert!(read("man/gate-man.1").is_err(), "a hidden verb has a page");
    }
}
