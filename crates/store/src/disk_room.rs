//! Whether the file system of a SQLite database has room for the next writes. While it has none, reads succeed, and so do
//! writes that fit into what the database's journal has already.

use crate::{Result, StoreError};
use std::{io, path::Path, sync::Arc, time::Duration};
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

/// Bytes: more than a transaction of the most units adds to the journal.
const ROOM: u64 = 1 << 20;
/// An allocation takes microseconds, and a disk that hangs does not answer.
const WITHIN: Duration = Duration::from_secs(2);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DiskRoom {
    directory: Arc<Path>,
    /// One check at a time, so that a disk that hangs holds one thread.
    running: Arc<Mutex<()>>,
}

impl DiskRoom {
    /// Of the file system that has this directory.
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self { directory: directory.into(), running: Arc::default() }
    }

    /// Allocates [`ROOM`] bytes, which counts quotas and reserved blocks, and frees them.
    pub(crate) async fn check(&self) -> Result<()> {
        let allocated = async {
            let running = Arc::clone(&self.running).lock_owned().await;
            let directory = Arc::clone(&self.directory);
            let work = move || {
                let _running = running;
                allocate(&directory)
            };
            spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        match timeout(WITHIN, allocated).await.map_err(|_| StoreError::DiskHangs)? {
            Err(error) if stops_writes(error.kind()) => Err(sqlx::Error::Io(error).into()),
            // Not every file system can allocate: what is unknown is no fault.
            _ => Ok(()),
        }
    }
}

fn stops_writes(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// The file has no name, or loses it at once.
fn allocate(directory: &Path) -> io::Result<()> {
    let file = tempfile::tempfile_in(directory)?;
    Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, ROOM)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DatabaseFault;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_told_as_such_and_not_as_a_write_of_unknown_result() {
        let directory = tempfile::tempdir().unwrap();
        let disk = DiskRoom::in_directory(directory.path());
        // As a check that the disk does not answer.
        let _hangs = disk.running.lock().await;
        let begin = tokio::time::Instant::now();
        let fault = disk.check().await.unwrap_err().fault();
        wicketgate_lab::named("/readyz is not ready.", begin.elapsed());
        assert_eq!(fault, DatabaseFault::DiskHangs);
        assert!(fault.to_string().starts_with("the database's disk does not answer: "), "{fault}");
    }
}
