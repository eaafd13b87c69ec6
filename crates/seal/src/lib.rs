//! Secrets at rest: values that are sealed under keys of a file. The store and the gateway use it.

mod secret_keys;

pub use secret_keys::{InvalidSecretKeys, KeyId, Place, SealError, SecretKeys};
