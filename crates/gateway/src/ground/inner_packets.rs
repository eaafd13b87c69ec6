//! Where packets inside the tunnel are, which depends on where the engine does ESP.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InnerPackets {
    /// They use the uplink and carry a security path: ESP in the kernel.
    SecurityPath,
    /// They use this TUN device of the engine.
    Device(&'static str),
}
