//! What the fuzz targets and a test run. Only they see this module.

pub use crate::{message::fuzz::vici_message, packet::fuzz::vici_packet};

#[test]
fn mutations_of_the_seeds_keep_the_properties() {
    wicketgate_seeds::replay("vici_message", 3000, vici_message);
    wicketgate_seeds::replay("vici_packet", 3000, vici_packet);
}
