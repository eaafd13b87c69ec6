//! The certificate authority: issues certificates to gateways and agents, and signs assignments and lists of gateways. Only servers link it.

mod ca;

pub use ca::{Ca, CaError, CaMaterial, LEAF_LIFETIME};
