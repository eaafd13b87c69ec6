#![no_main]

wicketgate_fuzz::target!(wicketgate_model::fuzz::proposal);
