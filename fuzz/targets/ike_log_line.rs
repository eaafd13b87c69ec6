#![no_main]

wicketgate_fuzz::target!(wicketgate_gateway::fuzz::ike_log_line);
