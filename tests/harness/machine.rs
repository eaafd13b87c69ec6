//! A Debian host: systemd booted in a container, in the network namespace that the test gives it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use wicketgate_lab::{Lab, Namespace, Process};

/// Until systemd has started its units: 2 s when measured.
const BOOT: Duration = Duration::from_secs(60);

pub(crate) struct Machine {
    pub(crate) root: PathBuf,
    container: Process,
    /// The container's first process.
    init: String,
}

impl Machine {
    /// Boots a copy of the host in `tar`.
    pub(crate) fn boot(lab: &Lab, name: &str, tar: &Path, namespace: &Namespace) -> Result<Self> {
        let root = lab.dir(name)?.join("root");
        fs::create_dir_all(&root)?;
        let unpacked = Command::new("tar").arg("-C").arg(&root).arg("-xf").arg(tar).status()?;
        ensure!(unpacked.success(), "cannot unpack {}", tar.display());
        // A container has no device of its own for tunnels, and no clock to wait for.
        let mut nspawn = Command::new("systemd-nspawn");
        nspawn
            // The network's settings are those of its own namespace.
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
            .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "--capability=all"])
            .args(["--bind=/dev/net/tun", "--link-journal=no", "--machine", name, "--directory"])
            .arg(&root)
            .arg(format!("--network-namespace-path=/run/netns/{}", namespace.name()));
        let mut container = Process::start(lab, name, &mut nspawn, &lab.path(&format!("{name}.log")))?;
        let children = format!("/proc/{0}/task/{0}/children", container.pid());
        // The first child is a helper, which ends when it has made the container's first process.
        let init = container.until(lab, "systemd has started", BOOT, |_| {
            let children = fs::read_to_string(&children)?;
            let Some(init) = children.split_whitespace().next().map(str::to_owned) else { return Ok(None) };
            let state = on(&init, &["systemctl", "is-system-running"]).output()?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            Ok(["running", "degraded"].contains(&state.as_str()).then_some(init))
        })?;
        Ok(Self { root, container, init })
    }

    /// A command on this host.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        on(&self.init, words)
    }

    /// Runs a command on this host, and returns what it printed.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        let out = self.command(words).output()?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            out.status.success(),
            "{words:?}: {}\n{}{}",
            out.status,
            said(&out.stdout),
            said(&out.stderr)
        );
        Ok(said(&out.stdout))
    }

    /// Copies a file into the home of root on this host, and returns its path there.
    pub(crate) fn receive(&self, file: &Path) -> Result<PathBuf> {
        let name = file.file_name().context("no file")?;
        fs::copy(file, self.root.join("root").join(name))?;
        Ok(Path::new("/root").join(name))
    }

    /// Installs a package from a file of this machine.
    pub(crate) fn install(&self, package: &Path) -> Result<String> {
        self.run(&["dpkg", "--install", &self.receive(package)?.display().to_string()])
    }

    /// Writes a file on this host, for its owner only.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().context("no directory")?)?;
        fs::write(&path, text)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
    }

    /// The files and directories of this host that packages and programs make, without those of the system's own work.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let system = "-path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp -o -path ./root \
                      -o -path ./var/log -o -path ./var/cache -o -path ./var/lib/dpkg -o -path ./var/lib/apt \
                      -o -path ./var/lib/systemd";
        let find = format!("cd {} && find . \\( {system} \\) -prune -o -print | sort", self.root.display());
        let out = Command::new("sh").args(["-c", &find]).output()?;
        Ok(String::from_utf8(out.stdout)?.lines().map(str::to_owned).collect())
    }

    pub(crate) fn end(mut self) -> Result<()> {
        self.command(&["systemctl", "poweroff"]).status()?;
        self.container.wait(BOOT).map(drop)
    }
}

/// A command in the container of a process.
fn on(init: &str, words: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--all", "--target", init, "--"]).args(words);
    command
}
