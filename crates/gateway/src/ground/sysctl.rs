//! The kernel's network settings, of the calling thread's namespace.

use std::io;

/// Sets `net.ipv4.<key>` (dots or slashes) unless it has the value: a container with read-only settings needs no
/// writing then.
pub(crate) fn set(key: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/ipv4/{}", key.replace('.', "/"));
    if std::fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|e| io::Error::new(e.kind(), format!("{path} = {value}: {e}")))
}

/// `net.ipv4.<key>`.
pub(crate) fn get(key: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(format!("/proc/sys/net/ipv4/{}", key.replace('.', "/")))?.trim().to_owned())
}
