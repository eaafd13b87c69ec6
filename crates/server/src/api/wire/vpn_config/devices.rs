//! Which devices there are.

use super::{
    VpnConfig, aws, cisco_asa, cisco_ios, device::Inexpressible, fortinet, juniper, libreswan, mikrotik,
    paloalto, pfsense, strongswan, vyos,
};

type Render = fn(&VpnConfig) -> Result<String, Inexpressible>;

pub(super) const DEVICES: [(&str, Render); 11] = [
    ("strongswan", strongswan::render),
    ("libreswan", libreswan::render),
    ("cisco-ios", cisco_ios::render),
    ("cisco-asa", cisco_asa::render),
    ("fortinet", fortinet::render),
    ("paloalto", paloalto::render),
    ("juniper", juniper::render),
    ("mikrotik", mikrotik::render),
    ("pfsense", pfsense::render),
    ("vyos", vyos::render),
    ("aws", aws::render),
];

/// The formats of a VPN configuration.
pub(in crate::api) const FORMATS: [&str; DEVICES.len() + 1] = {
    let mut all = ["json"; DEVICES.len() + 1];
    let mut n = 0;
    while n < DEVICES.len() {
        all[n + 1] = DEVICES[n].0;
        n += 1;
    }
    all
};

/// The configuration in the words of a device; `None` for a device that nobody knows.
pub(in crate::api) fn render(format: &str, config: &VpnConfig) -> Option<Result<String, Inexpressible>> {
    DEVICES.iter().find(|(name, _)| *name == format).map(|(_, render)| render(config))
}
