//! A device, and why it cannot be configured for a tunnel.

#[derive(Debug)]
pub(super) struct Device {
    /// As the API's `format` and the column in the table of algorithms name it.
    pub(super) format: &'static str,
    /// In a sentence.
    pub(super) name: &'static str,
    pub(super) template: &'static str,
}

/// Why there is no configuration for a device.
#[derive(Debug, thiserror::Error)]
pub(in crate::api) enum RenderError {
    #[error(transparent)]
    Inexpressible(#[from] Inexpressible),
    /// The message names the place in the template, and no value: it may be logged.
    #[error("the template of the device format failed: {0}")]
    Template(minijinja::Error),
}

/// A property of the tunnel that a device does not support, as a sentence. Never shows the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::api) enum Inexpressible {
    #[error(
        "{device} does not support the tunnel's pre-shared key: {rule}. Change the key, or let one be generated"
    )]
    Key { device: &'static str, rule: String },
    #[error("{device} does not support the tunnel's peerId: {rule}")]
    Identity { device: &'static str, rule: String },
    #[error("{device} supports none of the tunnel's {property}: {proposals}")]
    Proposals { device: &'static str, property: &'static str, proposals: String },
}
