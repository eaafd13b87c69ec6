#![no_main]

wicketgate_fuzz::target!(wicketgate_gateway::fuzz::nft_counters);
