//! The encoding of messages: one JSON document each.

use serde::{Serialize, de::DeserializeOwned};

/// A message that cannot be encoded, or bytes that are not a message.
#[derive(Debug, thiserror::Error)]
#[error("malformed link message")]
pub struct CodecError(#[from] serde_json::Error);

/// # Errors
///
/// A value in the message has no representation in JSON.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, CodecError> {
    Ok(serde_json::to_vec(message)?)
}

/// # Errors
///
/// The bytes are not a message of this type.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
    Ok(serde_json::from_slice(bytes)?)
}
