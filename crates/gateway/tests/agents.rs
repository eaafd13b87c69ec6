//! A real CA, a gateway's agents and real agents, over loopback.

#[cfg(test)]
mod agents {
    mod assignments;
    mod enrolment;
    pub(crate) mod lab;
    mod streams;
}
