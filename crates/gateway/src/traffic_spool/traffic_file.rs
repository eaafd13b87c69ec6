//! The file in which traffic waits that is not recorded: a gateway that is started again reports it.
//!
//! It has no secrets, and is written whole. While servers record what is reported, there is nothing to write.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;
use wicketgate_system::{Outage, private_file};

use super::{KeptTraffic, RESERVED, TrafficSpool};

/// Between two writes of a file of less than [`LARGE`]: a crash loses at most this much.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// Between two writes of a larger file.
const LARGE_EVERY: Duration = Duration::from_secs(60);
/// Bytes.
const LARGE: usize = 4 << 20;
/// What waits for longer, in seconds, is written.
const WAITS: i64 = 10;

impl TrafficSpool {
    /// Goes on with what the file has. One that cannot be read is told to the log, and replaced.
    pub(crate) fn load(file: PathBuf) -> Self {
        let new = KeptTraffic { spool: Uuid::now_v7(), last_number: 0, reports: Vec::new() };
        let kept = match fs::read(&file).map(|text| serde_json::from_slice::<KeptTraffic>(&text)) {
            Ok(Ok(kept)) => {
                info!(reports = kept.reports.len(), "traffic of the last run waits for being recorded");
                kept
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => new,
            unusable => {
                let error =
                    unusable.map(|_| "it is damaged".to_owned()).unwrap_or_else(|error| error.to_string());
                error!(file = %file.display(), error, "the traffic of the last run that was not recorded is lost");
                new
            }
        };
        let spool = Self::of(kept, file);
        // Before a number is used that a later start would use again.
        if let Some(file) = &spool.file
            && let Err(error) = spool.write(file)
        {
            warn!(file = %file.display(), %error, "traffic that waits cannot be written: a restart may lose it");
        }
        spool
    }

    /// Writes what is not recorded. Returns the bound of the numbers, and the length.
    fn write(&self, file: &Path) -> io::Result<(u64, usize)> {
        let kept = self.to_keep();
        let text = serde_json::to_vec(&kept)?;
        private_file::replace(file, &text)?;
        Ok((kept.last_number, text.len()))
    }

    /// Writes what waits until the last of it was sent, and then what is left; ends at once without a file.
    pub(crate) async fn keep_on_disk(self: Arc<Self>, over: CancellationToken) {
        let Some(file) = self.file.clone() else { return };
        let (mut outage, mut pause, mut disk) = (Outage::default(), WRITE_EVERY, OnDisk::default());
        loop {
            let is_over = over.run_until_cancelled(sleep(pause)).await.is_none();
            if disk.is_due(self.state(), is_over) {
                let (spool, to) = (Arc::clone(&self), file.clone());
                let is_empty = self.state().0.is_none();
                match spawn_blocking(move || spool.write(&to)).await {
                    Ok(Ok((last_number, length))) => {
                        disk = OnDisk { last_number: Some(last_number), is_empty };
                        pause = if length > LARGE { LARGE_EVERY } else { WRITE_EVERY };
                        if outage.recovered() {
                            info!(file = %file.display(), "traffic that waits is on the disk again");
                        }
                    }
                    Ok(Err(error)) if is_over => {
                        warn!(file = %file.display(), %error, "traffic that was not recorded is lost");
                    }
                    Ok(Err(error)) if outage.failed() => {
                        error!(file = %file.display(), %error, "traffic that waits cannot be written: a restart would lose it");
                    }
                    Ok(Err(_)) => {}
                    Err(_) => return,
                }
            }
            if is_over {
                return;
            }
        }
    }
}

/// What this run has written.
#[derive(Debug, Default)]
struct OnDisk {
    last_number: Option<u64>,
    is_empty: bool,
}

impl OnDisk {
    fn is_due(&self, (oldest, number): (Option<Timestamp>, u64), is_over: bool) -> bool {
        let waits = oldest.is_some_and(|at| is_over || Timestamp::now().as_second() - at.as_second() > WAITS);
        let is_out_of_date = self.last_number.is_none_or(|last| last < number + RESERVED / 2);
        // The numbers of a file that an earlier run has left are enough for this one.
        waits || (oldest.is_none() && !self.is_empty) || is_out_of_date
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_in_time_is_not_written() {
        let now = Timestamp::now();
        let long_ago = Timestamp::from_second(now.as_second() - 2 * WAITS).unwrap();
        let disk = OnDisk { last_number: Some(RESERVED), is_empty: true };
        assert!(!disk.is_due((Some(now), 100), false), "it is under way");
        assert!(disk.is_due((Some(long_ago), 100), false));
        assert!(disk.is_due((Some(now), 100), true), "the gateway stops");
        assert!(!disk.is_due((None, 100), true));
        assert!(disk.is_due((Some(now), RESERVED / 2 + 1), false), "its numbers come to an end");
        let disk = OnDisk { is_empty: false, ..disk };
        assert!(disk.is_due((None, 100), false), "what was written is recorded");
        assert!(OnDisk::default().is_due((None, 0), false));
    }
}
