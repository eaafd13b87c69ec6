#![no_main]

wicketgate_fuzz::target!(wicketgate_transport::fuzz::enrolment_code);
