//! What the fuzz targets and a test run: packets, and what the kernel and the IKE daemon say. Only they see this module.

pub use crate::{
    ground::{netlink, nft_counters, nft_set},
    ipsec::{charon_fault, esp_packet, ike_log_line},
};

#[test]
fn mutations_of_the_seeds_keep_the_properties() {
    wicketgate_seeds::replay("netlink", 3000, netlink);
    wicketgate_seeds::replay("nft_counters", 3000, nft_counters);
    wicketgate_seeds::replay("nft_set", 3000, nft_set);
    wicketgate_seeds::replay("charon_fault", 3000, charon_fault);
    wicketgate_seeds::replay("esp_packet", 3000, esp_packet);
    wicketgate_seeds::replay("ike_log_line", 3000, ike_log_line);
}
