//! A user of the command line.

use std::{
    fs::File,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{PATIENCE, World, wicketgate_executable};

/// A user of the command line, with a folder of its own for contexts.
pub(crate) struct User<'a> {
    pub(crate) world: &'a World,
    pub(crate) home: std::path::PathBuf,
}

impl<'a> User<'a> {
    pub(crate) fn new(world: &'a World, name: &str) -> Result<Self> {
        Ok(Self { world, home: world.lab.dir(name)? })
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.outside.command(&wicketgate_executable().display().to_string());
        command.args(args).env("XDG_CONFIG_HOME", &self.home).env_remove("HOME");
        command
    }

    pub(crate) fn run(&self, args: &[&str], input: &str) -> Result<Output> {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // A command that does not read its input has ended before.
        let _ = child.stdin.take().context("no standard input")?.write_all(input.as_bytes());
        Ok(child.wait_with_output()?)
    }

    /// What a command that succeeds prints.
    pub(crate) fn says(&self, args: &str) -> Result<String> {
        let out = self.run(&args.split(' ').collect::<Vec<_>>(), "")?;
        ensure!(out.status.success(), "{args}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8(out.stdout)?)
    }

    /// What it prints with another exit status than 0.
    pub(crate) fn says_with(&self, status: i32, args: &str) -> Result<String> {
        let out = self.run(&args.split(' ').collect::<Vec<_>>(), "")?;
        let words = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.code() == Some(status), "{args}: {}: {words}", out.status);
        Ok(String::from_utf8(out.stdout)?)
    }

    /// What it prints with `-o json`.
    pub(crate) fn json(&self, args: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.says(&format!("{args} -o json"))?)?)
    }

    /// The exit status of a command that fails, and its words.
    pub(crate) fn fails(&self, args: &str) -> Result<(i32, String)> {
        let out = self.run(&args.split(' ').collect::<Vec<_>>(), "")?;
        ensure!(out.stdout.is_empty(), "{args} printed {}", String::from_utf8_lossy(&out.stdout));
        Ok((out.status.code().context("killed")?, String::from_utf8(out.stderr)?))
    }

    /// Runs lines of a shell on a terminal of 120 columns. `wicketgate` is this user's.
    pub(crate) fn on_terminal(&self, name: &str, lines: &str) -> Result<Terminal<'a>> {
        let file = self.world.lab.dir(name)?.join("screen");
        let path = wicketgate_executable().parent().context("no folder")?.display().to_string();
        // The shell outlives an interruption of the program that it runs.
        let script = format!("trap : INT; stty cols 120 rows 40; PATH={path}:$PATH\n{lines}");
        let mut command = self.world.outside.command("script");
        command
            .args(["-qefc", &script, "/dev/null"])
            .env("XDG_CONFIG_HOME", &self.home)
            .env("SHELL", "/bin/sh");
        command.env("TERM", "xterm").env_remove("HOME").env_remove("NO_COLOR").stdin(Stdio::piped());
        command.stdout(File::create(&file)?).stderr(Stdio::null());
        let child = command.spawn().context("script is missing: apt-get install bsdutils")?;
        Ok(Terminal { world: self.world, child, file })
    }

    /// Signs in with the admin token, from standard input.
    pub(crate) fn sign_in(&self) -> Result<()> {
        let token = std::fs::read_to_string(self.world.gateway.data.join("admin.token"))?;
        let out = self.run(&["login", "--server", &self.world.url()], &token)?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        ensure!(!String::from_utf8_lossy(&out.stderr).contains(token.trim()), "the token was printed");
        Ok(())
    }
}

/// A terminal with a shell.
pub(crate) struct Terminal<'a> {
    world: &'a World,
    child: Child,
    file: PathBuf,
}

impl Terminal<'_> {
    /// Waits until this is on the screen.
    pub(crate) fn shows(&self, what: &str) -> Result<String> {
        let screen = || std::fs::read_to_string(&self.file);
        let shown = self.world.lab.until(what, PATIENCE, || Ok(Some(screen()?).filter(|s| s.contains(what))));
        shown.with_context(|| format!("the screen shows {:?}", screen().unwrap_or_default()))
    }

    /// Types on the keyboard: `\u{3}` is Ctrl-C.
    pub(crate) fn types(&mut self, keys: &str) -> Result<()> {
        Ok(self.child.stdin.as_mut().context("no keyboard")?.write_all(keys.as_bytes())?)
    }

    /// Waits for the end of the shell, and returns all that was on the screen.
    pub(crate) fn ends(mut self) -> Result<String> {
        self.world.lab.until("the shell ends", PATIENCE, || Ok(self.child.try_wait()?.map(|_| ())))?;
        Ok(std::fs::read_to_string(&self.file)?)
    }
}
