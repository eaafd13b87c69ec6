//! What this host can do: its rights, its programs, and its kernel.

use std::{net::Ipv4Addr, path::Path};

use super::{GroundError, NetworkError, home_netns, host_addresses::source_towards, tool::tool};

/// Bits of `CapEff` (linux/capability.h).
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Checks rights and programs without a change to the machine.
pub(crate) fn preflight() -> Result<(), GroundError> {
    if !is_privileged().unwrap_or(false) {
        return Err(GroundError::NotRoot);
    }
    let installed = |program| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    for (program, package) in
        [("ip", "iproute2"), ("nft", "nftables"), ("unshare", "util-linux"), ("setsid", "util-linux")]
    {
        if !installed(program) {
            return Err(GroundError::Missing { program, package });
        }
    }
    if home_netns::hides_names() {
        return Err(GroundError::HiddenNames);
    }
    Ok(())
}

pub(crate) fn require(file: &'static str, package: &'static str) -> Result<(), GroundError> {
    if Path::new(file).exists() { Ok(()) } else { Err(GroundError::Missing { program: file, package }) }
}

fn is_privileged() -> Option<bool> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let bits = u64::from_str_radix(effective.trim(), 16).ok()?;
    Some(bits & CAP_NET_ADMIN != 0 && bits & CAP_SYS_ADMIN != 0)
}

/// Installs an ESP state in the namespace `scratch`. It is never used, so that its key is no secret.
pub(crate) async fn kernel_esp(scratch: &str) -> Result<(), GroundError> {
    let key = format!("0x{}", "5a".repeat(36));
    let state = format!(
        "-n {scratch} xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode tunnel aead"
    );
    let state: Vec<_> = state.split(' ').chain(["rfc4106(gcm(aes))", &key, "128"]).collect();
    match tool("ip", &state).await {
        Ok(_) => Ok(()),
        Err(NetworkError::Tool { .. }) => Err(GroundError::NoKernelEsp),
        Err(e) => Err(e.into()),
    }
}

/// Makes a TUN device in the namespace `scratch`.
pub(crate) async fn tun_device(scratch: &str) -> Result<(), GroundError> {
    match tool("ip", &["-n", scratch, "tuntap", "add", "dev", "probe", "mode", "tun"]).await {
        Ok(_) => Ok(()),
        Err(NetworkError::Tool { message, .. }) => Err(GroundError::NoTun(message)),
        Err(e) => Err(e.into()),
    }
}

/// The default receive buffer of a socket in bytes; charon uses the default. `None` if the kernel does not tell, as in
/// some containers.
pub(crate) fn receive_buffer() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/net/core/rmem_default").ok()?.trim().parse().ok()
}

/// The source address of the default route.
pub(crate) fn default_source() -> Option<Ipv4Addr> {
    // TEST-NET-1 (RFC 5737) is reached by the default route only.
    source_towards(Ipv4Addr::new(192, 0, 2, 1))
}
