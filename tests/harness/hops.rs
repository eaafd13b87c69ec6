//! What the kernel knows of the connections in some namespaces: for a test whose transfer has stopped.

use std::fmt::Write as _;

use wicketgate_lab::Namespace;

/// Sockets with their timers, queues and buffers, and the counters that show losses.
const LOOKS: [&[&str]; 2] = [&["ss", "-tinmo"], &["nstat", "-as"]];

/// The state of each namespace, or why it cannot be read.
pub(crate) fn hops(namespaces: &[&Namespace]) -> String {
    let mut all = String::new();
    for namespace in namespaces {
        for look in LOOKS {
            let out = namespace.command(look[0]).args(&look[1..]).output();
            let out =
                out.map_or_else(|e| e.to_string(), |out| String::from_utf8_lossy(&out.stdout).into_owned());
            let _ = writeln!(all, "--- {}: {}\n{out}", namespace.name(), look.join(" "));
        }
    }
    all
}
