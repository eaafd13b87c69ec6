//! `wicketgate-agent enroll`: an enrolment code reaches the package's service without standing in a shell's history, a process
//! list, or a file that others can read.

use crate::package::CODE_FILE;
use anyhow::{Context as _, bail};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    fs::DirBuilder,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
};
use wicketgate_system::{private_file, program::StopSignals};
use wicketgate_transport::code::EnrolmentCode;
use zeroize::Zeroizing;

#[derive(Debug, Args)]
pub struct Enroll {
    /// The file that receives the code, mode 0600
    #[arg(long, value_name = "FILE", default_value = CODE_FILE)]
    file: PathBuf,
}

impl Enroll {
    pub async fn run(self) -> anyhow::Result<()> {
        let mut stop = StopSignals::new(false)?;
        let hidden = HiddenInput::begin()?;
        let line = tokio::task::spawn_blocking(|| {
            let mut line = Zeroizing::new(String::new());
            io::stdin().lock().read_line(&mut line).map(|_| line)
        });
        let line = tokio::select! {
            line = line => line?.context("cannot read the enrolment code")?,
            signal = stop.next() => {
                drop(hidden);
                bail!("stopped by {signal}: no code was saved")
            }
        };
        drop(hidden);
        // Before it is used up by a start that cannot succeed.
        let code: EnrolmentCode = line.parse()?;
        let shown = self.file.display();
        self.save(&code).with_context(|| format!("cannot write {shown}: run as root, or choose --file"))?;
        let next = if self.file.as_os_str() == CODE_FILE {
            "`systemctl restart wicketgate-agent` enrols this host with it, unless its present identity works, and removes \
             the code in both cases"
                .to_owned()
        } else {
            format!(
                "`wicketgate-agent start` with --enrollment-token-file {shown} enrols this host with it; then remove it"
            )
        };
        writeln!(io::stdout(), "{shown}: saved; {next}.")?;
        Ok(())
    }

    fn save(&self, code: &EnrolmentCode) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            // An existing one keeps its mode: it may be the system's.
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        private_file::replace(&self.file, code.expose().as_bytes())
    }
}

/// While it lives, the terminal does not show what is typed. Without a terminal it does nothing.
struct HiddenInput(Option<Termios>);

impl HiddenInput {
    fn begin() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        write!(io::stderr(), "Enrolment code (it is not shown): ")?;
        let before = tcgetattr(&stdin)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
            let _ = writeln!(io::stderr());
        }
    }
}
