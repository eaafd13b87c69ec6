//! What the fuzz targets and a test run: what callers of the API send. Only they see this module.

pub use crate::{
    api::{device_config, entity_tags, list_query, request_body},
    auth::{authorization, jwt, provider_token},
};

#[test]
fn mutations_of_the_seeds_keep_the_properties() {
    wicketgate_seeds::replay("authorization", 3000, authorization);
    wicketgate_seeds::replay("entity_tags", 3000, entity_tags);
    wicketgate_seeds::replay("jwt", 1000, jwt);
    wicketgate_seeds::replay("list_query", 3000, list_query);
    wicketgate_seeds::replay("provider_token", 1000, provider_token);
    wicketgate_seeds::replay("request_body", 3000, request_body);
}

#[test]
fn mutations_of_tunnels_have_the_configurations_of_their_devices() {
    wicketgate_seeds::replay("device_config", 200, device_config);
}
