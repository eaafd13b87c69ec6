//! Network namespaces: what a tunnel consists of below its IKE daemon, and the packets that may enter it.
//!
//! A [`Namespace`] is named in `/run/netns`, so that it outlives this process. Nothing in here ever changes the
//! namespace of a thread that does anything else: work inside one is done on a thread of its own that ends with it.

pub(crate) mod conntrack;
pub(crate) mod guard;
pub(crate) mod link;
pub(crate) mod namespace_monitor;
mod nfnetlink;
pub(crate) mod nft;
pub(crate) mod ruleset;
pub(crate) mod steering;
pub(crate) mod sysctl;

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{process::Command, sync::Mutex, time::timeout};

/// Where iproute2 keeps named namespaces.
const DIRECTORY: &str = "/run/netns";

/// `NSFS_MAGIC` of the kernel's `linux/magic.h`: what a mounted namespace's file system says it is.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// `ip` and `nft` answer in milliseconds, or wait for a kernel lock that others hold.
pub(crate) const TOOL_TIMEOUT: Duration = Duration::from_secs(10);

/// The first `ip netns add` on a host makes its directory a mount of its own; two at once would do that twice.
static CREATING: Mutex<()> = Mutex::const_new(());

/// A step on a namespace, a link or a rule set failed.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("can't {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("can't {what}: {message}")]
    Tool { what: String, message: String },
    #[error("can't {what}: {source}")]
    Netlink { what: String, source: rtnetlink::Error },
}

impl NetnsError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}

/// A named network namespace, open: it can be entered for as long as this value lives, whatever becomes of its name.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    name: Arc<str>,
    file: Arc<File>,
    inode: u64,
}

impl Namespace {
    /// Opens the namespace of this name, and makes it where there is none. A file of this name that is no
    /// namespace is what another mount namespace, or a host that went down, left: it is replaced.
    pub(crate) async fn ensure(name: &str) -> Result<Self, NetnsError> {
        if let Some(namespace) = Self::open(name)? {
            return Ok(namespace);
        }
        let _one_at_a_time = CREATING.lock().await;
        remove_stale(name)?;
        tool("ip", &["netns", "add", name]).await?;
        Self::open(name)?.ok_or_else(|| NetnsError::Tool {
            what: format!("open the namespace {name}"),
            message: "it is not mounted where it was made: start the gateway in the host's mount namespace \
                      (nsenter --net, not ip netns exec)"
                .to_owned(),
        })
    }

    /// Opens the namespace of this name, or answers `None` where there is none.
    pub(crate) fn open(name: &str) -> Result<Option<Self>, NetnsError> {
        let opening = || format!("open the namespace {name}");
        let file = match File::open(path(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(NetnsError::io(opening())(e)),
        };
        let stat = rustix::fs::fstatfs(&file).map_err(|e| NetnsError::io(opening())(e.into()))?;
        if u64::try_from(stat.f_type).unwrap_or_default() != NSFS_MAGIC {
            return Ok(None);
        }
        let inode = file.metadata().map_err(NetnsError::io(opening()))?.ino();
        Ok(Some(Self { name: name.into(), file: Arc::new(file), inode }))
    }

    /// Removes the name; the namespace is gone when its last process and open file are.
    pub(crate) async fn remove(name: &str) -> Result<(), NetnsError> {
        if Self::open(name)?.is_some() {
            tool("ip", &["netns", "del", name]).await?;
        }
        remove_stale(name)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether both are the same namespace, whatever they are called.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.inode == other.inode
    }

    /// Whether the process `pid` is inside.
    pub(crate) fn holds(&self, pid: i32) -> bool {
        std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| m.ino() == self.inode)
    }

    /// Runs `work` on a thread of its own inside, and waits for it. For quick work: it blocks.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let inside = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            })?;
            inside.join().map_err(|_| io::Error::other("the thread inside the namespace panicked"))?
        })
    }

    /// As [`Namespace::run`], from a thread that may block.
    pub(crate) async fn run_blocking<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, NetnsError> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || this.run(work)).await;
        let what = || format!("{what} in the namespace {}", self.name);
        done.map_err(|e| NetnsError::io(what())(io::Error::other(e)))?.map_err(NetnsError::io(what()))
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Removes the file of this name if it is not a namespace.
fn remove_stale(name: &str) -> Result<(), NetnsError> {
    if Namespace::open(name)?.is_some() {
        return Ok(());
    }
    match std::fs::remove_file(path(name)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(NetnsError::io(format!("remove the stale {DIRECTORY}/{name}"))(e))
        }
        _ => Ok(()),
    }
}

/// Runs a program of iproute2, in this process's own namespace, and returns what it printed.
pub(crate) async fn tool(program: &str, arguments: &[&str]) -> Result<String, NetnsError> {
    let what = || format!("run {program} {}", arguments.join(" "));
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(TOOL_TIMEOUT, child)
        .await
        .map_err(|_| NetnsError::Tool { what: what(), message: "it took too long".to_owned() })?
        .map_err(NetnsError::io(what()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetnsError::Tool { what: what(), message })
}
