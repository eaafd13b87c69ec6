//! What a gateway and a remote site may agree on. The gateway offers it, and devices' configurations name it.

/// IKE SA proposals in strongSwan's notation, the best first; the last one is for devices that know nothing newer.
pub const IKE_PROPOSALS: [&str; 5] = [
    "aes256gcm16-prfsha384-ecp384",
    "aes256gcm16-prfsha256-ecp256",
    "aes256gcm16-prfsha384-x25519",
    "aes256-sha384-ecp384",
    "aes256-sha256-modp2048",
];

/// CHILD SA proposals, each with a group for perfect forward secrecy (RFC 7296 §1.3.1).
pub const ESP_PROPOSALS: [&str; 5] = [
    "aes256gcm16-ecp384",
    "aes256gcm16-ecp256",
    "aes256gcm16-x25519",
    "aes256gcm16-modp2048",
    "aes256-sha256-modp2048",
];
