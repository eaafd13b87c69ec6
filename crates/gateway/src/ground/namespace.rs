//! Named network namespaces.
//!
//! A [`Namespace`] is named in `/run/netns`, so that it outlives this process. Invariant: no thread that does other work
//! changes its namespace; work inside one runs on a thread of its own that ends with it.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::Mutex;
use wicketgate_system::if_exists;

use super::{NetworkError, tool::tool};

/// Where iproute2 keeps named namespaces.
const DIRECTORY: &str = "/run/netns";

/// `NSFS_MAGIC` of the kernel's `linux/magic.h`: what a mounted namespace's file system says it is.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The first `ip netns add` on a host makes its directory a mount; two at once would do so twice.
static CREATING: Mutex<()> = Mutex::const_new(());

/// A named network namespace, opened: it can be entered while this value lives, even after its name is removed.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    name: Arc<str>,
    pub(super) file: Arc<File>,
    inode: u64,
}

impl Namespace {
    /// Opens the namespace of this name, or makes it. A file of this name that is no namespace is a leftover of another
    /// mount namespace or of a reboot: it is replaced.
    pub(crate) async fn ensure(name: &str) -> Result<Self, NetworkError> {
        if let Some(namespace) = Self::open(name)? {
            return Ok(namespace);
        }
        let _one_at_a_time = CREATING.lock().await;
        remove_stale(name)?;
        tool("ip", &["netns", "add", name]).await?;
        Self::open(name)?.ok_or_else(|| {
            let message = "it is not mounted where it was made: start the gateway in the host's mount namespace \
                           (nsenter --net, not ip netns exec)";
            NetworkError::refused(format!("open the namespace {name}"), message)
        })
    }

    /// Opens the namespace of this name; `None` if there is none.
    pub(crate) fn open(name: &str) -> Result<Option<Self>, NetworkError> {
        let opening = || format!("open the namespace {name}");
        let file = if_exists(File::open(path(name))).map_err(NetworkError::io(opening()))?;
        let Some(file) = file else { return Ok(None) };
        let stat = rustix::fs::fstatfs(&file).map_err(|e| NetworkError::io(opening())(e.into()))?;
        if u64::try_from(stat.f_type).unwrap_or_default() != NSFS_MAGIC {
            return Ok(None);
        }
        let inode = file.metadata().map_err(NetworkError::io(opening()))?.ino();
        Ok(Some(Self { name: name.into(), file: Arc::new(file), inode }))
    }

    /// Removes the name; the namespace ends with its last process and open file.
    pub(crate) async fn remove(name: &str) -> Result<(), NetworkError> {
        if Self::open(name)?.is_some() {
            tool("ip", &["netns", "del", name]).await?;
        }
        remove_stale(name)
    }

    /// Whether both are the same namespace.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.inode == other.inode
    }

    /// Whether the process `pid` is inside.
    pub(crate) fn holds(&self, pid: i32) -> bool {
        std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| m.ino() == self.inode)
    }

    /// Runs `work` on a thread of its own inside, and waits for it. Blocks: for quick work only.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let inside = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            })?;
            inside.join().map_err(|_| io::Error::other("the thread inside the namespace panicked"))?
        })
    }

    /// As [`Namespace::run`], from a thread that is allowed to block.
    pub(crate) async fn run_blocking<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || this.run(work)).await;
        let what = format!("{what} in the namespace {}", self.name);
        done.map_err(io::Error::from).flatten().map_err(NetworkError::io(what))
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Removes the file of this name if it is not a namespace.
fn remove_stale(name: &str) -> Result<(), NetworkError> {
    if Namespace::open(name)?.is_some() {
        return Ok(());
    }
    let removed = if_exists(std::fs::remove_file(path(name)));
    removed.map(drop).map_err(NetworkError::io(format!("remove the stale {DIRECTORY}/{name}")))
}
