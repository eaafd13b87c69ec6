//! The name of the server, or of the proxy.

use super::report::{Verdict, fail, pass, skip};
use crate::{
    endpoint::{CONNECT_WITHIN, Endpoint},
    names::{Names, NoAddress},
};
use std::sync::Arc;
use tokio::time::timeout;

pub(crate) async fn check(endpoint: &Endpoint, names: &Arc<Names>) -> (Verdict, String) {
    if endpoint.ip().is_some() {
        return skip("is an address");
    }
    let found = timeout(CONNECT_WITHIN, names.lookup(endpoint.host())).await;
    match found.unwrap_or(Err(NoAddress::NoAnswer)) {
        Ok(addresses) => {
            let all: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            pass(format!("is {}", all.join(", ")))
        }
        Err(error) => {
            let host = endpoint.host();
            fail(format!(
                "{error}; correct it, or the name servers of this host (getent ahosts {host} shows what they answer)"
            ))
        }
    }
}
