//! What is wrong with a database, for the person who has to repair it.

use std::{fmt, io};

/// Its text (`Display`) is the cause and the cure. It holds no address and no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseFault {
    /// No connection can be made, or one has broken.
    Unreachable(io::ErrorKind),
    /// It accepts no connection yet, or none any more.
    Restarting,
    /// It accepts the connection and refuses the user, the password or the database's name.
    Refused,
    DiskFull,
    DiskFailed,
    /// Its file has been changed by something else, or was cut.
    Damaged,
    /// It answers neither with success nor with an error.
    DiskHangs,
    ReadOnly,
    /// All connections are in use.
    Busy,
    /// It did not answer in time, and nothing was changed.
    Late,
    /// Whether a write was committed is unknown: the database did not answer in time, or the connection broke.
    Unconfirmed,
    /// This process has closed it.
    Closed,
    /// Anything else: the log has the cause.
    Other,
}

/// SQLite's primary result codes (<https://www.sqlite.org/rescode.html>).
mod sqlite {
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const READ_ONLY: u32 = 8;
    pub(super) const IO: u32 = 10;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const CAN_NOT_OPEN: u32 = 14;
    pub(super) const NOT_A_DATABASE: u32 = 26;
    /// The extended code of a journal's index that cannot grow: a full disk.
    pub(super) const IO_INDEX_SIZE: u32 = 4874;
}

impl DatabaseFault {
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(e) => match e.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
                io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
                kind => Self::Unreachable(kind),
            },
            sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Self::Unreachable(io::ErrorKind::InvalidData),
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::PoolClosed => Self::Closed,
            sqlx::Error::Database(e) => e.code().map_or(Self::Other, |code| Self::of_code(&code)),
            _ => Self::Other,
        }
    }

    /// PostgreSQL's codes have five characters (its documentation, appendix A); SQLite's are shorter numbers.
    fn of_code(code: &str) -> Self {
        if let Some(code) = code.parse::<u32>().ok().filter(|_| code.len() < 5) {
            return match (code, code & 0xff) {
                (sqlite::IO_INDEX_SIZE, _) | (_, sqlite::FULL) => Self::DiskFull,
                (_, sqlite::CORRUPT | sqlite::NOT_A_DATABASE) => Self::Damaged,
                (_, sqlite::IO | sqlite::CAN_NOT_OPEN) => Self::DiskFailed,
                (_, sqlite::READ_ONLY) => Self::ReadOnly,
                (_, sqlite::BUSY | sqlite::LOCKED) => Self::Busy,
                _ => Self::Other,
            };
        }
        match code {
            "53100" => Self::DiskFull,
            "58030" => Self::DiskFailed,
            "XX001" | "XX002" => Self::Damaged,
            "25006" => Self::ReadOnly,
            "53300" => Self::Busy,
            "57P01" | "57P02" | "57P03" => Self::Restarting,
            // A lock or a statement took too long, the transaction was idle for too long, or it gave way to another one.
            "55P03" | "57014" | "25P03" | "40P01" | "40001" => Self::Late,
            "3D000" => Self::Refused,
            code if code.starts_with("28") => Self::Refused,
            code if code.starts_with("08") => Self::Unreachable(io::ErrorKind::ConnectionAborted),
            _ => Self::Other,
        }
    }

    /// Reads may still succeed, and no write does.
    pub(crate) fn stops_writes(self) -> bool {
        matches!(self, Self::DiskFull | Self::DiskFailed | Self::Damaged | Self::ReadOnly)
    }

    /// No connection can be made, so that waiting for one is in vain.
    pub(crate) fn is_unreachable(self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Restarting | Self::Refused)
    }
}

impl fmt::Display for DatabaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable(kind) => {
                return write!(
                    f,
                    "the database cannot be reached ({kind}): start it, or repair the network to it"
                );
            }
            Self::Restarting => "the database is starting or stopping: wait for it, or start it",
            Self::Refused => {
                "the database refuses the server's user: check its access rules and the URL in --database"
            }
            Self::DiskFull => "the database's disk is full: free space on it",
            Self::DiskFailed => "the database's disk fails: see the server's log, and check the disk",
            Self::Damaged => {
                "the database is damaged: stop the server, keep a copy of the files, and restore a backup (`wicketgate restore`)"
            }
            Self::DiskHangs => {
                "the database's disk does not answer: see the kernel's log of its host, and check the disk or its network"
            }
            Self::ReadOnly => {
                "the database cannot be written: its disk is read-only, or it is a standby server: see the kernel's log of its host, and repair the disk"
            }
            Self::Busy => "the database is overloaded: repeat the request later",
            Self::Late => {
                "the database did not answer in time, and nothing was changed: repeat the request later"
            }
            Self::Unconfirmed => {
                "the database did not confirm the write, so it is unknown whether the change was made: read the resource \
                 before you repeat the request"
            }
            Self::Closed => "this server is stopping, or another one has taken its database",
            Self::Other => "the database fails: the server's log has the cause",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_are_told_apart() {
        // The command line tells by these words that a write may have been made.
        assert!(DatabaseFault::Unconfirmed.to_string().contains("it is unknown whether"));
        for (code, fault) in [
            ("13", DatabaseFault::DiskFull),
            ("4874", DatabaseFault::DiskFull),
            ("778", DatabaseFault::DiskFailed),
            ("267", DatabaseFault::Damaged),
            ("26", DatabaseFault::Damaged),
            ("XX001", DatabaseFault::Damaged),
            ("1032", DatabaseFault::ReadOnly),
            ("517", DatabaseFault::Busy),
            ("53100", DatabaseFault::DiskFull),
            ("53300", DatabaseFault::Busy),
            ("57P03", DatabaseFault::Restarting),
            ("55P03", DatabaseFault::Late),
            ("25P03", DatabaseFault::Late),
            ("28P01", DatabaseFault::Refused),
            ("08006", DatabaseFault::Unreachable(io::ErrorKind::ConnectionAborted)),
            ("42P01", DatabaseFault::Other),
        ] {
            assert_eq!(DatabaseFault::of_code(code), fault, "{code}");
        }
    }
}
