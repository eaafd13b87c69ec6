//! A service manager to which programs tell their state (sd_notify(3)).

use std::{os::unix::net::UnixDatagram, path::Path};

use anyhow::Result;

use super::PATIENCE;

pub(crate) struct ServiceManager(UnixDatagram);

impl ServiceManager {
    /// For a program that is started with this path in `NOTIFY_SOCKET`.
    pub(crate) fn at(socket: &Path) -> Result<Self> {
        let bound = UnixDatagram::bind(socket)?;
        bound.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(bound))
    }

    /// Waits for a message with a line that begins so, and returns the message.
    pub(crate) fn until(&self, wanted: &str) -> Result<String> {
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n) = self.0.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            if text.lines().any(|line| line.starts_with(wanted)) {
                return Ok(text);
            }
            seen.push(text);
        }
        anyhow::bail!("{wanted} was not sent: {seen:?}")
    }
}
