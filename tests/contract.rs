//! The contract as others see it: programs that know the API by its document only, at a running server with an agent.

mod client;
mod schemathesis;
