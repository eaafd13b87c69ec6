//! The API's contract: programs that know the API only from its OpenAPI document call a running server with an agent.

mod client;
mod pages;
mod schemathesis;
