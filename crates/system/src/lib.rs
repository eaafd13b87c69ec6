//! What every process needs from its operating system and runtime, once for all crates.

pub mod accept;
mod apart;
pub mod backoff;
pub mod bucket;
mod created_directories;
pub mod descriptor_budget;
pub mod directory_lock;
mod essential;
mod if_exists;
mod in_turn;
mod latest;
pub mod log;
pub mod metrics_text;
pub mod open_files;
mod outage;
pub mod own_directory;
mod patient_threads;
pub mod private_file;
pub mod program;
mod second_runtime;
pub mod send_queue;
pub mod service_manager;
pub mod socket_buffers;
pub mod sockets;
mod tcp_info;
pub mod terminal;

pub use apart::apart;
pub use essential::essential;
pub use if_exists::if_exists;
pub use in_turn::TurnsToCompute;
pub use latest::Latest;
pub use outage::Outage;
pub use patient_threads::PatientThreads;
pub use second_runtime::SecondRuntime;

/// A mutex without poisoning: it stays usable after a panic of its holder, so one failed task does not stop the others.
/// Holders keep the value consistent at every point where they may panic.
pub use parking_lot::{Mutex, MutexGuard};
