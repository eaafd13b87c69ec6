#![no_main]

wicketgate_fuzz::target!(wicketgate_server::fuzz::request_body);
