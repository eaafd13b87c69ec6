//! A network namespace: made, joined to others, entered.

use std::{
    cell::Cell,
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    ledger::namespace_path,
    program::{feed, run},
};

thread_local! {
    /// The inode of the namespace that this thread has entered.
    static INSIDE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A handle: clones name the same namespace. The [`Lab`](crate::Lab) that made it removes it.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

/// One end of a link: the namespace, the interface's name in it, and its address (`203.0.113.1/24`).
#[derive(Debug, Clone, Copy)]
pub struct End<'a>(pub &'a Namespace, pub &'a str, pub &'a str);

impl Namespace {
    pub(crate) fn make(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let this = Self::open(name)?;
        this.ip("link set dev lo up")?;
        // A remote site's routes are asymmetric on purpose: packets use the tunnel, addresses are on lo.
        for key in ["net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter"] {
            this.sysctl(key, "0")?;
        }
        Ok(this)
    }

    /// A namespace that another program made.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn open(name: &str) -> Result<Self> {
        let file =
            File::open(namespace_path(name)).with_context(|| format!("can't open namespace {name}"))?;
        Ok(Self { name: name.to_owned(), file: Arc::new(file) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs lines of `ip -batch` in the namespace.
    ///
    /// # Errors
    /// One of them fails; with the error of `ip`.
    pub fn ip(&self, lines: &str) -> Result<()> {
        batch(&["-n", &self.name], lines).with_context(|| format!("in {}", self.name))
    }

    /// Loads nftables rules in the namespace, all of them or none.
    ///
    /// # Errors
    /// The rules are invalid; with the error of `nft`.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let loaded = feed(self.command("nft").args(["-f", "-"]), rules);
        loaded.map(drop).with_context(|| format!("in {}", self.name))
    }

    /// # Errors
    /// When the setting can't be written. `key` is its path below `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        // /proc/sys/net shows the namespace of the thread that looks.
        self.enter(|| std::fs::write(format!("/proc/sys/{key}"), value))?
            .with_context(|| format!("can't set {key} in {}", self.name))
    }

    /// Joins this namespace's end to another's by a pair of virtual Ethernet interfaces.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn link(near: End<'_>, far: End<'_>) -> Result<()> {
        let (End(a, a_if, a_ip), End(b, b_if, b_ip)) = (near, far);
        a.ip(&format!("link add {a_if} type veth peer name {b_if} netns {}", b.name))?;
        for (ns, interface, ip) in [(a, a_if, a_ip), (b, b_if, b_ip)] {
            let address =
                if ip.is_empty() { String::new() } else { format!("addr add {ip} dev {interface}\n") };
            ns.ip(&format!("{address}link set dev {interface} up"))?;
        }
        Ok(())
    }

    /// A command that will run in the namespace, in the host's mount namespace: `ip netns exec` would give it one of
    /// its own, which hides the namespaces that the product makes. `exec` all the way: the child is the program.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace_path(&self.name).display())).arg("--").arg(program);
        for proxy in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            // No namespace reaches the host's proxy.
            command.env_remove(proxy);
        }
        command
    }

    /// Runs `f` on a thread that has entered the namespace: the calling one, if it has. Sockets that it opens stay there.
    ///
    /// # Errors
    /// When the namespace can't be entered, or `f` panics on another thread.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let this =
            self.file.metadata().with_context(|| format!("can't look at namespace {}", self.name))?.ino();
        if INSIDE.get() == Some(this) {
            return Ok(f());
        }
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("can't enter namespace {}", self.name))?;
                INSIDE.set(Some(this));
                Ok(f())
            });
            entered.join().map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
        })
    }

    /// # Errors
    /// As [`TcpStream::connect_timeout`].
    pub fn connect(&self, to: SocketAddr, bound: Duration) -> Result<TcpStream> {
        self.enter(|| TcpStream::connect_timeout(&to, bound))?
            .with_context(|| format!("can't connect to {to} from {}", self.name))
    }

    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn listen(&self, on: SocketAddr) -> Result<TcpListener> {
        self.enter(|| TcpListener::bind(on))?
            .with_context(|| format!("can't listen on {on} in {}", self.name))
    }
}

/// Runs lines of `ip -batch`.
pub(crate) fn batch(options: &[&str], lines: &str) -> Result<()> {
    feed(Command::new("ip").args(options).args(["-batch", "-"]), lines)
        .map(drop)
        .with_context(|| lines.to_owned())
}
