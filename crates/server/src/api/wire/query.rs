//! Query strings. A parameter that nobody knows is refused by name: a typo must not pass.

use super::fields::printable;
use crate::{error::ApiError, state::AppState};
use axum::{
    extract::{FromRequestParts, Query as Pairs},
    http::request::Parts,
};
use std::str::FromStr;
use wicketgate_model::Invalid;
use wicketgate_store::PageRequest;

const SIZE: u32 = 20;
const LARGEST_SIZE: u32 = 1000;

/// The parameters of a request, decoded.
#[derive(Debug)]
pub(in crate::api) struct Query(Vec<(String, String)>);

impl FromRequestParts<AppState> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let Pairs(pairs) = Pairs::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::bad_request("The query must be name=value pairs, percent-encoded"))?;
        Ok(Self(pairs))
    }
}

impl Query {
    /// The value of each of `known`, in their order; each may be given once.
    pub(in crate::api) fn values<const N: usize>(
        self,
        known: [&str; N],
    ) -> Result<[Option<String>; N], ApiError> {
        let mut values = [const { None }; N];
        for (name, value) in self.0 {
            let place = known.iter().position(|k| *k == name);
            let Some(slot) = place.and_then(|i| values.get_mut(i)) else {
                return Err(ApiError::bad_request(format!("{} is not a known parameter", printable(&name))));
            };
            if slot.replace(value).is_some() {
                return Err(ApiError::bad_request(format!("{name} must be given once")));
            }
        }
        Ok(values)
    }

    pub(in crate::api) fn list(self) -> Result<ListQuery, ApiError> {
        let [page, size] = self.values(["page", "size"])?;
        ListQuery::new(page, size, Vec::new())
    }
}

/// Which page of which list.
#[derive(Debug)]
pub(in crate::api) struct ListQuery {
    pub(in crate::api) page: PageRequest,
    /// What a link to another page has to say too.
    filters: Vec<(&'static str, String)>,
}

impl ListQuery {
    pub(in crate::api) fn new(
        page: Option<String>,
        size: Option<String>,
        filters: Vec<(&'static str, String)>,
    ) -> Result<Self, ApiError> {
        let number = page.map_or(Ok(0), |p| whole("page", &p, 0, i64::MAX))?;
        let size = size.map_or(Ok(SIZE.into()), |s| whole("size", &s, 1, LARGEST_SIZE.into()))?;
        let page = PageRequest {
            number: u64::try_from(number).unwrap_or(0),
            size: u32::try_from(size).unwrap_or(LARGEST_SIZE),
        };
        Ok(Self { page, filters })
    }

    /// The same list at another page. The values are ids and numbers, which need no encoding.
    pub(super) fn at_page(&self, number: u64) -> String {
        let mut text: String = self.filters.iter().map(|(name, value)| format!("{name}={value}&")).collect();
        text.push_str(&format!("page={number}&size={}", self.page.size));
        text
    }
}

fn whole(name: &str, text: &str, least: i64, most: i64) -> Result<i64, ApiError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ApiError::bad_request(format!("Value for {name} must be of integer")));
    }
    text.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(|| {
        ApiError::bad_request(if most == i64::MAX {
            format!("{name} must be {least} or more")
        } else {
            format!("{name} must be between {least} and {most}")
        })
    })
}

/// A parameter that is an id, or the like.
pub(in crate::api) fn parsed<T: FromStr<Err = Invalid>>(
    name: &str,
    value: Option<String>,
) -> Result<Option<T>, ApiError> {
    value.map(|v| v.parse().map_err(|rule| ApiError::bad_request(format!("{name} {rule}")))).transpose()
}
