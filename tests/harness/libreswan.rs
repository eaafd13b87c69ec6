//! A remote site's IPsec device by another vendor: Libreswan in a namespace, configured with exactly the text that the
//! product generates for it. It uses the kernel's ESP. Without ESP in the kernel it negotiates but carries no traffic.

use std::{
    ffi::OsString,
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use wicketgate_lab::{Lab, Namespace, Process};

/// The directory of Libreswan's programs. The path is compiled into them.
const PROGRAMS: &str = "usr/libexec/ipsec";

/// The longest time from the daemon's start to its control socket. The daemon tests its algorithms first.
const START: Duration = Duration::from_secs(60);

/// The longest wait, in seconds, for one answer of the daemon.
const WHACK_TIMEOUT: &str = "20";

/// A Libreswan device. Its daemon ends with the lab.
#[derive(Debug)]
pub(crate) struct Libreswan {
    pub(crate) namespace: Namespace,
    programs: PathBuf,
    /// `PATH` with Libreswan's own `ipsec`, which sets routes, before strongSwan's program of the same name.
    path: OsString,
    dir: PathBuf,
    pluto: Option<Process>,
}

impl Libreswan {
    /// Creates a device in a namespace that already has its public address. The loopback interface gets the address
    /// `inside` of the network behind the device. `root` is the result of [`wicketgate_lab::unpacked`].
    pub(crate) fn new(
        lab: &Lab,
        name: &str,
        namespace: &Namespace,
        inside: Ipv4Addr,
        root: &Path,
    ) -> Result<Self> {
        namespace.ip(&format!("addr add {inside}/32 dev lo"))?;
        let (dir, programs) = (lab.dir(name)?, root.join(PROGRAMS));
        let mut path = root.join("usr/sbin").into_os_string();
        path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(Self { namespace: namespace.clone(), programs, path, dir, pluto: None })
    }

    /// Writes `vpn_config` unchanged to the files that its first lines name, and starts the daemon, which reads them.
    pub(crate) fn start(&mut self, lab: &Lab, vpn_config: &str) -> Result<()> {
        let secret = vpn_config.lines().last().and_then(|l| l.strip_prefix("# "));
        let secret = secret.filter(|l| l.contains(": PSK ")).context("the last line has no key")?;
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))?;
        let at = |name: &str| self.dir.join(name);
        for dir in ["ipsec.d", "nss", "run"] {
            fs::create_dir_all(at(dir))?;
        }
        fs::write(at("ipsec.d/site.conf"), vpn_config)?;
        fs::write(at("ipsec.secrets"), format!("{secret}\n"))?;
        fs::write(at("ipsec.conf"), format!("config setup\ninclude {}/*.conf\n", at("ipsec.d").display()))?;
        let nss = format!("sql:{}", at("nss").display());
        let made = Command::new("certutil").args(["-N", "-d", &nss, "--empty-password"]).output()?;
        ensure!(made.status.success(), "certutil: {}", String::from_utf8_lossy(&made.stderr));

        let mut command = self.namespace.command("unshare");
        command
            .env("PATH", &self.path)
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            // The path of the daemon's programs is compiled in. The mount is visible to this process only.
            .arg(format!(
                r#"mount -t tmpfs tmpfs /usr/libexec && mkdir /{PROGRAMS} && mount --bind "$0" /{PROGRAMS} && exec "$@""#
            ))
            .args([self.programs.as_path(), Path::new("/usr/libexec/ipsec/pluto")])
            .args(["--nofork", "--stderrlog"])
            .args(["--config".as_ref(), at("ipsec.conf").as_os_str()])
            .args(["--secretsfile".as_ref(), at("ipsec.secrets").as_os_str()])
            .args(["--nssdir".as_ref(), at("nss").as_os_str()])
            .args(["--rundir".as_ref(), at("run").as_os_str()])
            .args(["--dumpdir".as_ref(), at("run").as_os_str()]);
        let log = at("pluto.log");
        let mut pluto = Process::start(lab, "pluto", &mut command, &log)?;
        let socket = at("run/pluto.ctl");
        let up = lab.until("pluto is up", START, || {
            pluto.alive()?;
            Ok(socket.exists().then_some(()))
        });
        self.pluto = Some(pluto);
        up.with_context(|| self.log_tail())
    }

    /// The daemon's log.
    pub(crate) fn log(&self) -> String {
        self.pluto.as_ref().map(Process::said).unwrap_or_default()
    }

    pub(crate) fn log_tail(&self) -> String {
        self.pluto.as_ref().map(Process::tail).unwrap_or_default()
    }

    /// Runs `whack`, the daemon's control program, and returns its output.
    pub(crate) fn whack(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("timeout");
        command.arg(WHACK_TIMEOUT).arg(self.programs.join("whack"));
        command.args(["--ctlsocket".as_ref(), self.dir.join("run/pluto.ctl").as_os_str()]);
        let out = command.args(args).output().context("cannot run whack")?;
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        if out.status.success() {
            Ok(said)
        } else {
            bail!("whack {}: {}\n{said}", args.join(" "), out.status)
        }
    }
}
