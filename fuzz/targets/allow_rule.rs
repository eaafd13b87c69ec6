#![no_main]

wicketgate_fuzz::target!(wicketgate_agent::fuzz::allow_rule);
