//! The kernel's network settings. A thread sees those of the namespace that it is in.

use std::io;

/// Sets `net.ipv4.<key>` (dots or slashes), in the namespace of the calling thread, unless it is set so already:
/// in a container where the settings can't be written, what is right needs no writing.
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
