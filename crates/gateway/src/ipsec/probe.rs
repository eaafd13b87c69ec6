//! What this machine can do. Asked by doing it, in a namespace made for that and removed again.

use std::{net::Ipv4Addr, path::Path};

use super::{IpsecError, IpsecMode, home_netns};
use crate::netns::{Namespace, NetnsError, guard::EspPath, link::source_towards, tool};

/// Where Debian and its kin install the IKE daemon.
pub(super) const CHARON: &str = "/usr/lib/ipsec/charon";
const LIBIPSEC: &str = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so";
const VICI: &str = "/usr/lib/ipsec/plugins/libstrongswan-vici.so";
const OPENSSL: &str = "/usr/lib/ipsec/plugins/libstrongswan-openssl.so";

/// Bits of `CapEff` (linux/capability.h).
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Answers without a change to the machine: the rights and the programs are there.
pub(super) fn preflight() -> Result<(), IpsecError> {
    if !is_privileged().unwrap_or(false) {
        return Err(IpsecError::NotRoot);
    }
    let installed = |program| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    for (program, package) in
        [("ip", "iproute2"), ("nft", "nftables"), ("unshare", "util-linux"), ("setsid", "util-linux")]
    {
        if !installed(program) {
            return Err(IpsecError::Missing { program, package });
        }
    }
    for (file, package) in [
        (CHARON, "strongswan-charon"),
        (VICI, "strongswan-swanctl"),
        (OPENSSL, "libstrongswan-standard-plugins"),
    ] {
        require(file, package)?;
    }
    if home_netns::hides_names() {
        return Err(IpsecError::HiddenNames);
    }
    Ok(())
}

fn require(file: &'static str, package: &'static str) -> Result<(), IpsecError> {
    if Path::new(file).exists() { Ok(()) } else { Err(IpsecError::Missing { program: file, package }) }
}

fn is_privileged() -> Option<bool> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let bits = u64::from_str_radix(effective.trim(), 16).ok()?;
    Some(bits & CAP_NET_ADMIN != 0 && bits & CAP_SYS_ADMIN != 0)
}

/// Where ESP is to be done.
pub(super) async fn esp(mode: IpsecMode, instance: &str) -> Result<EspPath, IpsecError> {
    let scratch = format!("wicketgate-{instance}-probe");
    Namespace::remove(&scratch).await?;
    Namespace::ensure(&scratch).await?;
    let answer = choose(mode, &scratch).await;
    Namespace::remove(&scratch).await?;
    answer
}

async fn choose(mode: IpsecMode, scratch: &str) -> Result<EspPath, IpsecError> {
    match mode {
        IpsecMode::Kernel => kernel(scratch).await,
        IpsecMode::Userland => userland(scratch).await,
        IpsecMode::Auto | IpsecMode::Off => match kernel(scratch).await {
            Ok(path) => Ok(path),
            Err(kernel) => userland(scratch).await.map_err(|userland| IpsecError::NoEsp {
                kernel: Box::new(kernel),
                userland: Box::new(userland),
            }),
        },
    }
}

/// Installs a state that nothing ever uses; its key is no secret.
async fn kernel(scratch: &str) -> Result<EspPath, IpsecError> {
    let key = format!("0x{}", "5a".repeat(36));
    let state = [
        "-n",
        scratch,
        "xfrm",
        "state",
        "add",
        "src",
        "192.0.2.1",
        "dst",
        "192.0.2.2",
        "proto",
        "esp",
        "spi",
        "0x1000",
        "mode",
        "tunnel",
        "aead",
        "rfc4106(gcm(aes))",
        &key,
        "128",
    ];
    match tool("ip", &state).await {
        Ok(_) => Ok(EspPath::Kernel),
        Err(NetnsError::Tool { .. }) => Err(IpsecError::NoKernelEsp),
        Err(e) => Err(e.into()),
    }
}

async fn userland(scratch: &str) -> Result<EspPath, IpsecError> {
    require(LIBIPSEC, "libcharon-extra-plugins")?;
    match tool("ip", &["-n", scratch, "tuntap", "add", "dev", "probe", "mode", "tun"]).await {
        Ok(_) => Ok(EspPath::Userland),
        Err(NetnsError::Tool { message, .. }) => Err(IpsecError::NoTun(message)),
        Err(e) => Err(e.into()),
    }
}

/// What a socket's queue holds unless it asks for more, in bytes; charon's asks for nothing. `None` where the kernel does not
/// tell, as in some containers.
pub(super) fn receive_buffer() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/net/core/rmem_default").ok()?.trim().parse().ok()
}

/// The source address of the default route.
pub(super) fn default_source() -> Option<Ipv4Addr> {
    // TEST-NET-1 (RFC 5737): in no routing table but by the default route.
    source_towards(Ipv4Addr::new(192, 0, 2, 1))
}
