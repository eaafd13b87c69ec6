//! A remote site's IPsec device: a real strongSwan in a namespace, configured with exactly the text that the product
//! generates for strongSwan. Its ESP is in userland unless [`Site::use_kernel_esp`] was called.

use std::{
    fs, net::Ipv4Addr, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command, time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    lab::Lab,
    namespace::Namespace,
    process::Process,
    program::{last_lines, run},
};

/// Where Debian has the daemon.
const CHARON: &str = "/usr/lib/ipsec/charon";

/// From its start to its control socket: 55–106 ms when measured, and this machine may be busy.
const START: Duration = Duration::from_secs(30);

/// For one `swanctl`, whose own timeout is for the daemon's answer.
const SWANCTL_TIMEOUT: &str = "20";

const USERLAND_ESP: &str = "kernel-libipsec";

#[derive(Debug)]
pub struct Site {
    pub namespace: Namespace,
    /// The device's public address.
    pub public: Ipv4Addr,
    /// An address in the network behind the device.
    pub inside: Ipv4Addr,
    name: String,
    dir: PathBuf,
    charon: Option<Process>,
    logs_keys: bool,
    is_patient: bool,
    esp_in_kernel: bool,
}

impl Site {
    /// A site in a namespace that has its public address already. `inside` is given to the loopback interface.
    ///
    /// # Errors
    /// When the address or the directory can't be made.
    pub fn new(
        lab: &Lab,
        name: &str,
        namespace: &Namespace,
        public: Ipv4Addr,
        inside: Ipv4Addr,
    ) -> Result<Self> {
        namespace.ip(&format!("addr add {inside}/32 dev lo"))?;
        let dir = lab.dir(name)?;
        let (namespace, name) = (namespace.clone(), name.to_owned());
        Ok(Self {
            namespace,
            public,
            inside,
            name,
            dir,
            charon: None,
            logs_keys: false,
            is_patient: false,
            esp_in_kernel: false,
        })
    }

    /// Has the daemon, once started, leave ESP to the kernel.
    pub fn use_kernel_esp(&mut self) {
        self.esp_in_kernel = true;
    }

    /// Has the daemon, once started, write the keys of its SAs into its log: for a test that sends ESP in its place, or looks for
    /// them elsewhere.
    pub fn log_keys(&mut self) {
        self.logs_keys = true;
    }

    /// Has the daemon, once started, wait for answers as long as strongSwan does by default: 165 s.
    pub fn use_default_patience(&mut self) {
        self.is_patient = true;
    }

    /// Writes `vpn_config` as the device's configuration, unchanged, starts its daemon and loads it.
    ///
    /// # Errors
    /// When the daemon does not come up or refuses the configuration.
    pub fn start(&mut self, lab: &Lab, vpn_config: &str) -> Result<()> {
        let swanctl = self.dir.join("swanctl");
        fs::create_dir_all(&swanctl)?;
        let run = self.dir.join("run");
        fs::create_dir_all(&run)?;
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))?;
        fs::write(swanctl.join("swanctl.conf"), vpn_config)?;
        fs::write(self.dir.join("strongswan.conf"), self.settings())?;

        let mut command = self.namespace.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            // Its pid file's path is compiled in: a private /run, so that daemons don't meet.
            .arg(r#"rm -f "$0"/*; mount --bind "$0" /run && exec "$1""#)
            .arg(&run)
            .arg(CHARON)
            .env("STRONGSWAN_CONF", self.dir.join("strongswan.conf"));
        let socket = self.dir.join("charon.vici");
        let _ = fs::remove_file(&socket);
        let log = self.dir.join("charon.out");
        let mut charon = Process::start(lab, &format!("charon of {}", self.name), &mut command, &log)?;
        let up = charon.until(lab, "the site's charon is up", START, |_| Ok(socket.exists().then_some(())));
        self.charon = Some(charon);
        up.with_context(|| self.log_tail())?;
        self.swanctl(&["--load-all", "--noprompt"])?;
        Ok(())
    }

    /// Loads another configuration, unchanged, into the running daemon. Established SAs stay.
    ///
    /// # Errors
    /// When the daemon refuses it.
    pub fn load(&self, vpn_config: &str) -> Result<()> {
        fs::write(self.dir.join("swanctl").join("swanctl.conf"), vpn_config)?;
        self.swanctl(&["--load-all", "--noprompt"]).map(drop)
    }

    /// Ends the SAs, of which the peer is notified, and tries once to connect again. Returns whether it connected.
    ///
    /// # Errors
    /// When there is no connection loaded.
    pub fn try_again(&self) -> Result<bool> {
        // An SA that is not there needs no end.
        let conns = self.swanctl(&["--list-conns"])?;
        let name =
            conns.lines().find_map(|l| l.split_once(": IKEv2").map(|(name, _)| name.trim().to_owned()));
        let _ = self.swanctl(&["--terminate", "--ike", &name.context("no connection is loaded")?]);
        self.try_connect()
    }

    /// Waits until the tunnel is up: the configuration has the device start it.
    ///
    /// # Errors
    /// When it does not come up, with the end of the daemon's log.
    pub fn connected(&self, lab: &Lab, bound: Duration) -> Result<()> {
        lab.until("the site's tunnel is up", bound, || {
            Ok(self.swanctl(&["--list-sas"])?.contains("INSTALLED").then_some(()))
        })
        .with_context(|| self.log_tail())
    }

    /// Tries once to bring the tunnel up from this side, and returns whether it came up.
    ///
    /// # Errors
    /// When there is no connection loaded.
    pub fn try_connect(&self) -> Result<bool> {
        let child = self.child()?;
        Ok(self.swanctl(&["--initiate", "--child", &child]).is_ok())
    }

    /// Ends the device's daemon.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.charon.take().map_or(Ok(()), |mut charon| charon.stop(Duration::from_secs(10)).map(drop))
    }

    /// Ends the device's daemon at once (SIGKILL): its peer is not notified, and keeps the SAs until its dead peer detection.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.charon.take().map_or(Ok(()), |mut charon| charon.kill())
    }

    /// The log of the device's daemon.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("charon.log")).unwrap_or_default()
    }

    /// The name of the first CHILD SA in the loaded configuration.
    fn child(&self) -> Result<String> {
        let conns = self.swanctl(&["--list-conns"])?;
        let child = conns.lines().find_map(|l| l.trim().split_once(": TUNNEL").map(|(name, _)| name));
        Ok(child.with_context(|| format!("no connection is loaded:\n{conns}"))?.to_owned())
    }

    /// Runs `swanctl` against the device's daemon.
    ///
    /// # Errors
    /// It fails; with its output.
    pub fn swanctl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("timeout");
        command
            .args([SWANCTL_TIMEOUT, "swanctl"])
            .args(args)
            .env("STRONGSWAN_CONF", self.dir.join("strongswan.conf"))
            .env("SWANCTL_DIR", self.dir.join("swanctl"));
        run(&mut command).with_context(|| format!("swanctl {} failed", args.join(" ")))
    }

    /// The end of the daemon's log.
    pub fn log_tail(&self) -> String {
        format!("--- charon of {}\n{}", self.name, last_lines(&self.log()))
    }

    fn settings(&self) -> String {
        let esp = if self.esp_in_kernel { "" } else { USERLAND_ESP };
        let keys = if self.logs_keys { "chd = 4\n      ike = 4" } else { "" };
        let patience = if self.is_patient { "" } else { "retransmit_tries = 3\n  retransmit_timeout = 1.0" };
        include_str!("site/strongswan.conf")
            .replace("{dir}", &self.dir.display().to_string())
            .replace("{esp}", esp)
            .replace("{keys}", keys)
            .replace("{patience}", patience)
    }
}
