//! What strongSwan needs of this machine, and which ESP it can use.

use wicketgate_model::EspMode;

use crate::{
    ground::{GroundError, Namespace, probe},
    ipsec::config::IpsecMode,
};

/// Where Debian and its kin install the IKE daemon.
pub(super) const CHARON: &str = "/usr/lib/ipsec/charon";
const LIBIPSEC: &str = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so";
const VICI: &str = "/usr/lib/ipsec/plugins/libstrongswan-vici.so";
const OPENSSL: &str = "/usr/lib/ipsec/plugins/libstrongswan-openssl.so";

/// What came of trying each kind of ESP.
#[derive(Debug)]
pub(crate) struct EspSupport {
    pub(crate) kernel: Result<(), GroundError>,
    pub(crate) userland: Result<(), GroundError>,
}

/// Checks rights, programs and plugins without a change to the machine.
pub(in crate::ipsec) fn preflight() -> Result<(), GroundError> {
    probe::preflight()?;
    for (file, package) in [
        (CHARON, "strongswan-charon"),
        (VICI, "strongswan-swanctl"),
        (OPENSSL, "libstrongswan-standard-plugins"),
    ] {
        probe::require(file, package)?;
    }
    Ok(())
}

/// Which ESP this host can do, tried in a namespace that is made for this and removed again.
pub(crate) async fn esp_support(scratch: &str) -> Result<EspSupport, GroundError> {
    Namespace::remove(scratch).await?;
    Namespace::ensure(scratch).await?;
    let support = EspSupport { kernel: probe::kernel_esp(scratch).await, userland: userland(scratch).await };
    Namespace::remove(scratch).await?;
    Ok(support)
}

/// The ESP to use, found by trying it in a namespace that is made for this and removed again.
pub(super) async fn esp(mode: IpsecMode, instance: u16) -> Result<EspMode, GroundError> {
    let scratch = format!("wicketgate-{instance:04x}-probe");
    Namespace::remove(&scratch).await?;
    Namespace::ensure(&scratch).await?;
    let answer = choose(mode, &scratch).await;
    Namespace::remove(&scratch).await?;
    answer
}

async fn choose(mode: IpsecMode, scratch: &str) -> Result<EspMode, GroundError> {
    if mode == IpsecMode::Userland {
        userland(scratch).await?;
        return Ok(EspMode::Userland);
    }
    match probe::kernel_esp(scratch).await {
        Ok(()) => Ok(EspMode::Kernel),
        Err(kernel) if mode == IpsecMode::Kernel => Err(kernel),
        Err(kernel) => match userland(scratch).await {
            Ok(()) => Ok(EspMode::Userland),
            Err(userland) => {
                Err(GroundError::NoEsp { kernel: Box::new(kernel), userland: Box::new(userland) })
            }
        },
    }
}

async fn userland(scratch: &str) -> Result<(), GroundError> {
    probe::require(LIBIPSEC, "libcharon-extra-plugins")?;
    probe::tun_device(scratch).await
}
