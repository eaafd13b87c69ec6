#![no_main]

wicketgate_fuzz::target!(wicketgate_agent::fuzz::http_proxy_answer);
