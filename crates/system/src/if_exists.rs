//! Files that may be missing.

use std::io::{self, ErrorKind};

/// The result of an operation on a file; `None` if the file does not exist.
pub fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
