#![no_main]

wicketgate_fuzz::target!(wicketgate_server::fuzz::provider_token);
