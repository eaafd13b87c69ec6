//! What every process needs from its operating system and runtime, once for all crates.

pub mod accept;
pub mod backoff;
pub mod directory_lock;
mod latest;
mod mutex;
mod outage;
pub mod private_file;

pub use latest::Latest;
pub use mutex::Mutex;
pub use outage::Outage;
