//! The encoding of messages: one JSON document each.

use serde::{Serialize, de::DeserializeOwned};

/// A message that can't be encoded, or bytes that are no message.
#[derive(Debug, thiserror::Error)]
#[error("malformed link message: {0}")]
pub struct CodecError(#[from] serde_json::Error);

/// # Errors
///
/// A value of the message has no representation in JSON.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, CodecError> {
    Ok(serde_json::to_vec(message)?)
}

/// # Errors
///
/// The bytes are no message of this type.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
    Ok(serde_json::from_slice(bytes)?)
}
