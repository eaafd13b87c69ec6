//! Where a gateway encrypts.

use crate::declare::serde_as_text;

crate::text_enum!(
    /// Which implementation of ESP a gateway uses.
    EspMode {
        Kernel = "kernel",
        /// ESP in UDP only (RFC 3948): the peer must encapsulate even without a NAT in between.
        Userland = "userland",
        /// No IPsec: development and benchmarks.
        Off = "off",
    }
);
serde_as_text!(EspMode);
