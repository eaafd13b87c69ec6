//! The algorithms that a tunnel may use, by the API's keywords, and the known weak ones, each with the reason.

use std::fmt;

macro_rules! algorithms {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $keyword:literal $(| $alias:literal)*),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As the API writes it.
            pub fn keyword(self) -> &'static str {
                match self { $(Self::$variant => $keyword),+ }
            }

            pub(super) fn from_keyword(word: &str) -> Option<Self> {
                match word { $($keyword $(| $alias)* => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.keyword())
            }
        }
    };
}

algorithms!(
    /// The cipher (RFC 8247 §2.1, RFC 8221 §5). GCM, with a tag of 16 bytes, also authenticates.
    Encryption {
        Aes256Gcm = "aes256gcm16" | "aes256gcm" | "aes256gcm128",
        Aes128Gcm = "aes128gcm16" | "aes128gcm" | "aes128gcm128",
        Aes256Cbc = "aes256",
        Aes128Cbc = "aes128" | "aes",
    }
);
algorithms!(
    /// SHA-2 in HMAC: the integrity check beside CBC, and the pseudo-random function of IKE.
    Hash {
        Sha256 = "sha256" | "sha2_256",
        Sha384 = "sha384" | "sha2_384",
        Sha512 = "sha512" | "sha2_512",
    }
);
algorithms!(
    /// The group of a Diffie-Hellman exchange (RFC 8247 §2.4).
    Group {
        Ecp384 = "ecp384",
        Ecp256 = "ecp256",
        Ecp521 = "ecp521",
        X25519 = "x25519" | "curve25519",
        Modp2048 = "modp2048",
        Modp3072 = "modp3072",
        Modp4096 = "modp4096",
    }
);

impl Encryption {
    /// Whether it also authenticates, so that a proposal has no integrity algorithm.
    pub fn is_aead(self) -> bool {
        matches!(self, Self::Aes256Gcm | Self::Aes128Gcm)
    }
}

/// Refused keywords, each with the reason.
const WEAK: [(&str, &str); 17] = [
    ("3des", "with its blocks of 64 bits it leaks after some gigabytes under one key"),
    ("des", "its 56-bit key is found by trying all"),
    ("blowfish", "with its blocks of 64 bits it leaks after some gigabytes under one key"),
    ("cast128", "with its blocks of 64 bits it leaks after some gigabytes under one key"),
    ("null", "it encrypts nothing"),
    ("md5", "RFC 8247 forbids it: it is broken"),
    ("prfmd5", "RFC 8247 forbids it: it is broken"),
    ("sha1", "it is broken as a hash, and every device that is still maintained has SHA-256"),
    ("sha", "it is SHA-1, which is broken as a hash; every device that is still maintained has SHA-256"),
    ("prfsha1", "it is broken as a hash, and every device that is still maintained has SHA-256"),
    ("modp768", "the group was broken in public"),
    ("modp1024", "the group is within reach of a well-equipped attacker"),
    ("modp1024s160", "RFC 8247 forbids it: its subgroup is small, and where it comes from is unknown"),
    ("modp2048s224", "its subgroup is small, and where it comes from is unknown: take modp2048"),
    ("modp2048s256", "its subgroup is small, and where it comes from is unknown: take modp2048"),
    ("modp1536", "RFC 8247 advises against it: take modp2048 or a curve"),
    ("ecp192", "96 bits of strength are too few: take ecp256"),
];

/// Why the algorithm is refused, if it is known to be weak.
pub(super) fn weakness(word: &str) -> Option<&'static str> {
    WEAK.iter().find(|(weak, _)| *weak == word).map(|(_, why)| *why)
}
