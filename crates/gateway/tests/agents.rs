//! A real CA, a gateway's agents and real agents, over loopback.

#[cfg(test)]
mod agents {
    mod admission;
    mod assignments;
    mod carriers;
    mod duplicates;
    mod enrolment;
    mod handshake_limits;
    mod hearing;
    mod hostile;
    pub(crate) mod lab;
    pub(crate) mod puppet;
    mod replicas;
    mod reports;
    mod several;
    mod streams;
}
