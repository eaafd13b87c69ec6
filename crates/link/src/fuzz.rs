//! What the fuzz target and a test run. Only they see this module.

use crate::{FromGateway, ToGateway, codec};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// An accepted message is the same after it was encoded.
pub fn link_message(bytes: &[u8]) {
    same::<ToGateway>(bytes);
    same::<FromGateway>(bytes);
}

fn same<M: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = codec::decode::<M>(bytes) else { return };
    let again = codec::encode(&message).and_then(|bytes| codec::decode::<M>(&bytes));
    assert_eq!(again.ok().as_ref(), Some(&message));
}

#[test]
fn mutations_of_the_seeds_keep_the_properties() {
    wicketgate_seeds::replay("link_message", 3000, link_message);
}
