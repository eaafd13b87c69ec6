//! The devices: each is one line here, a template in `devices/` and a column of `devices/algorithms.txt`.

use super::{
    VpnConfig,
    device::{Device, RenderError},
    template,
};

macro_rules! devices {
    ($($format:literal: $name:literal,)+) => {
        pub(super) const DEVICES: &[Device] = &[
            $(Device { format: $format, name: $name, template: include_str!(concat!("devices/", $format, ".j2")) },)+
        ];
        const JSON_AND_DEVICES: &[&str] = &["json", $($format),+];
    };
}

devices! {
    "strongswan": "strongSwan",
    "libreswan": "Libreswan",
    "cisco-ios": "Cisco IOS XE",
    "cisco-asa": "a Cisco ASA",
    "fortinet": "a FortiGate",
    "paloalto": "a Palo Alto Networks firewall",
    "juniper": "a Juniper SRX",
    "mikrotik": "MikroTik RouterOS",
    "pfsense": "pfSense",
    "vyos": "VyOS",
    "aws": "AWS",
}

/// The formats of a VPN configuration.
pub(in crate::api) const FORMATS: &[&str] = JSON_AND_DEVICES;

/// The configuration in a device's own syntax; `None` for an unknown format.
pub(in crate::api) fn render(format: &str, config: &VpnConfig) -> Option<Result<String, RenderError>> {
    DEVICES.iter().find(|device| device.format == format).map(|device| template::render(device, config))
}
