//! What a fuzz target runs: query strings of lists.

use super::*;
use crate::api::wire::{agent, execution, share, tunnel};

/// A query string that a list accepts has bounds, and the link of another page is of the same list.
pub fn list_query(text: &[u8]) {
    for properties in [share::PROPERTIES, tunnel::PROPERTIES, agent::PROPERTIES, execution::PROPERTIES] {
        let Ok(query) = read(text, properties) else { continue };
        let page = query.request.page;
        assert!((1..=LARGEST_SIZE).contains(&i64::from(page.size)));
        assert!(query.request.sort.len() <= properties.len());
        let again = read(query.at_page(7).as_bytes(), properties);
        let again = again.map(|again| (again.request.filters, again.request.sort, again.request.page));
        let page = PageRequest { number: 7, size: page.size };
        assert_eq!(again.ok(), Some((query.request.filters, query.request.sort, page)));
    }
}

pub(super) fn read(text: &[u8], properties: &'static [Property]) -> Result<ListQuery, ApiError> {
    let pairs = form_urlencoded::parse(text).into_owned().collect();
    Query(pairs, None).list(properties)
}
