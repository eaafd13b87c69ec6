#![no_main]

wicketgate_fuzz::target!(wicketgate_agent::fuzz::socks5_answer);
