#![no_main]

wicketgate_fuzz::target!(wicketgate_vici::fuzz::vici_packet);
