//! The limit of open files of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Raises the limit of open files to the hard limit, and returns it. The usual soft limit, 1,024, is for programs that
/// use `select`.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        warn!(%error, "could not raise the limit of open files");
    }
    limit_now()
}

/// The limit that holds now.
pub fn limit_now() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u32::MAX))
}
