#![no_main]

wicketgate_fuzz::target!(wicketgate_link::fuzz::link_frame);
