//! The cryptography of the agent port and the link port, where both ends are Wicketgate's.

use rustls::crypto::{
    CryptoProvider,
    aws_lc_rs::{
        cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256},
        default_provider,
    },
};
use std::sync::{Arc, LazyLock};

pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        // The first is the fastest with AES instructions; TLS 1.3 has no weak cipher suite.
        let cipher_suites =
            vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
        Arc::new(CryptoProvider { cipher_suites, ..default_provider() })
    });
    Arc::clone(&PROVIDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::NamedGroup;

    /// What is recorded today is not read with the quantum computer of tomorrow.
    #[test]
    fn the_hybrid_key_exchange_is_preferred() {
        assert_eq!(provider().kx_groups[0].name(), NamedGroup::X25519MLKEM768);
    }
}
