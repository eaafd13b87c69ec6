//! What this host can do: its rights, its programs, and its kernel.

use std::{net::Ipv4Addr, path::Path};

use rustix::thread::{CapabilitySet, capabilities};

use super::{GroundError, NetworkError, home_netns, host_addresses::source_towards, tool::tool};

/// Checks rights and programs without a change to the machine.
pub(crate) fn preflight() -> Result<(), GroundError> {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    if !capabilities(None).is_ok_and(|has| has.effective.contains(needed)) {
        return Err(GroundError::NotRoot);
    }
    let installed = |program| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables"), ("setsid", "util-linux")] {
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

/// Installs an ESP state in the namespace `scratch`. It is never used, so that its key is no secret.
pub(crate) async fn kernel_esp(scratch: &str) -> Result<(), GroundError> {
    let key = format!("0x{}", "5a".repeat(36));
    let state = format!(
        "-n {scratch} xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode tunnel aead"
    );
    let state: Vec<_> = state.split(' ').chain(["rfc4106(gcm(aes))", &key, "128"]).collect();
    tool("ip", &state).await.map(drop).map_err(|error| match error {
        NetworkError::Refused { .. } => GroundError::NoKernelEsp,
        error => error.into(),
    })
}

/// Makes a TUN device in the namespace `scratch`.
pub(crate) async fn tun_device(scratch: &str) -> Result<(), GroundError> {
    let made = tool("ip", &["-n", scratch, "tuntap", "add", "dev", "probe", "mode", "tun"]).await;
    made.map(drop).map_err(|error| match error {
        NetworkError::Refused { message, .. } => GroundError::NoTun(message),
        error => error.into(),
    })
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
