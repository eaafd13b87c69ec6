//! Query strings. An unknown parameter is an error, so that a typo is noticed. A list is filtered and sorted by the
//! properties in its resource's table; all faults of a query are reported at once.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;

use super::{
    fields::printable,
    property::{Property, PropertyType, listed},
};
use crate::{
    api::limits::{ListReader, ListTurn},
    error::{ApiError, PropertyFault},
    state::{AppState, now},
};
use axum::{
    extract::{FromRequestParts, Query as Pairs},
    http::request::Parts,
};
use form_urlencoded::Serializer;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
};
use wicketgate_model::FrontdoorId;
use wicketgate_store::{Filter, FilterValue, ListRequest, PageRequest, Sort};

const SIZE: u32 = 20;
const LARGEST_SIZE: i64 = 1000;
/// Filters: more than any client needs, and few enough for one SQL statement.
const MOST_PARAMETERS: usize = 200;
/// Values that the items of one list property are searched for: each is looked for in the text of every row.
pub(in crate::api) const MOST_ITEMS: usize = 10;
/// Followed by the name of a tag.
const TAG: &str = "tag.";

/// The parameters of a request, decoded. A caller takes turns with its other lists.
#[derive(Debug)]
pub(in crate::api) struct Query(Vec<(String, String)>, Option<ListTurn>);

impl FromRequestParts<AppState> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        // The decoder of the pairs replaces bytes that are not UTF-8 by U+FFFD.
        if percent_decode_str(parts.uri.query().unwrap_or_default()).decode_utf8().is_err() {
            return Err(ApiError::bad_request("The query must be UTF-8, percent-encoded"));
        }
        let Pairs(pairs) = Pairs::<Vec<_>>::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::bad_request("The query must be name=value pairs, percent-encoded"))?;
        if pairs.len() > MOST_PARAMETERS {
            return Err(ApiError::bad_request(format!(
                "The query must not have more than {MOST_PARAMETERS} parameters"
            )));
        }
        Ok(Self(pairs, ListReader::turn(state, parts).await?))
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
                return Err(ApiError::bad_request(unknown(&name)));
            };
            if slot.replace(value).is_some() {
                return Err(ApiError::bad_request(format!("{name} must be given once")));
            }
        }
        Ok(values)
    }

    /// Which rows of a list, in which order.
    pub(in crate::api) fn list(self, properties: &'static [Property]) -> Result<ListQuery, ApiError> {
        let mut reading =
            Reading { page: None, size: None, sort: Vec::new(), filters: Vec::new(), faults: Vec::new() };
        for (name, value) in &self.0 {
            reading.parameter(properties, name, value);
        }
        if !reading.faults.is_empty() {
            return Err(ApiError::faults(reading.faults));
        }
        let page = PageRequest {
            number: reading.page.and_then(|n| n.try_into().ok()).unwrap_or(0),
            size: reading.size.and_then(|n| n.try_into().ok()).unwrap_or(SIZE),
        };
        let Reading { sort, filters, .. } = reading;
        let kept_since = Some(now() - super::RETENTION);
        let request = ListRequest { page, sort, filters, kept_since, known: None };
        let rest = self.0.into_iter().filter(|(name, _)| name != "page" && name != "size").collect();
        Ok(ListQuery { request, rest, turn: self.1 })
    }
}

/// Which page of which list.
#[derive(Debug)]
pub(in crate::api) struct ListQuery {
    pub(in crate::api) request: ListRequest,
    /// The parameters that links to other pages repeat.
    rest: Vec<(String, String)>,
    turn: Option<ListTurn>,
}

impl ListQuery {
    /// Counts the rows of the answer.
    pub(super) fn read(&self, rows: usize) {
        if let Some(turn) = &self.turn {
            turn.read(rows);
        }
    }

    /// The same list at another page.
    pub(super) fn at_page(&self, number: u64) -> String {
        let mut text = Serializer::new(String::new());
        text.extend_pairs(&self.rest);
        text.append_pair("page", &number.to_string());
        text.append_pair("size", &self.request.page.size.to_string());
        text.finish()
    }
}

#[derive(Debug)]
struct Reading {
    page: Option<i64>,
    size: Option<i64>,
    sort: Vec<Sort>,
    filters: Vec<Filter>,
    faults: Vec<PropertyFault>,
}

impl Reading {
    fn parameter(&mut self, properties: &'static [Property], name: &str, value: &str) {
        let read = match name {
            "page" => whole(name, value, 0..=i64::MAX, &mut self.page),
            "size" => whole(name, value, 1..=LARGEST_SIZE, &mut self.size),
            "sort" => sort(properties, value).map(|sort| {
                // Sorting by a column a second time changes nothing.
                if !self.sort.iter().any(|s| s.column == sort.column) {
                    self.sort.push(sort);
                }
            }),
            _ => self.filter(properties, name, value),
        };
        if let Err(message) = read {
            let fault = PropertyFault { property: printable(name), message };
            // Said once, however often the parameter is given.
            if !self.faults.iter().any(|f| f.property == fault.property && f.message == fault.message) {
                self.faults.push(fault);
            }
        }
    }

    fn filter(&mut self, properties: &'static [Property], name: &str, value: &str) -> Result<(), String> {
        let tag = name.strip_prefix(TAG).filter(|tag| !tag.is_empty());
        let found = match tag {
            Some(_) => {
                properties.iter().find(|p| p.kind == PropertyType::Tags).and_then(|p| Some((p, p.column?)))
            }
            None => listed(properties, name).filter(|(p, _)| p.kind != PropertyType::Tags),
        };
        let (property, column) = found.ok_or_else(|| unknown(name))?;
        let value = match tag {
            Some(tag) => FilterValue::Tag { name: tag.to_owned(), value: value.to_owned() },
            None => filter_value(property.kind, value).ok_or_else(|| wrong_type(property))?,
        };
        // Values of one property, or of one tag, are alternatives.
        let same = |f: &&mut Filter| {
            f.column == column
                && match (f.values.first(), &value) {
                    (Some(FilterValue::Tag { name: one, .. }), FilterValue::Tag { name: other, .. }) => {
                        one == other
                    }
                    _ => true,
                }
        };
        match self.filters.iter_mut().find(same) {
            Some(filter) if matches!(value, FilterValue::Item(_)) && filter.values.len() >= MOST_ITEMS => {
                return Err(format!("{name} must be given at most {MOST_ITEMS} times"));
            }
            Some(filter) => filter.values.push(value),
            None => self.filters.push(Filter { column, values: vec![value] }),
        }
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    format!("{} is not a known parameter", printable(name))
}

/// A whole number that is given once.
fn whole(name: &str, text: &str, range: RangeInclusive<i64>, slot: &mut Option<i64>) -> Result<(), String> {
    let n = integer(text).ok_or_else(|| format!("Value for {name} must be of type integer"))?;
    let n = i64::try_from(n).ok().filter(|n| range.contains(n)).ok_or_else(|| match range.into_inner() {
        (least, i64::MAX) => format!("{name} must be {least} or more"),
        (least, most) => format!("{name} must be between {least} and {most}"),
    })?;
    if slot.replace(n).is_some() { Err(format!("{name} must be given once")) } else { Ok(()) }
}

/// A number of any length, saturated.
fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_integer = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_integer.then(|| text.parse().unwrap_or(i128::MAX))
}

/// `property`, `property,asc` or `property,desc`.
fn sort(properties: &'static [Property], text: &str) -> Result<Sort, String> {
    let (name, direction) = text.split_once(',').unwrap_or((text, "asc"));
    let (property, column) =
        listed(properties, name.trim()).ok_or_else(|| match printable(name).as_str() {
            "" => "sort must name a property of the list".to_owned(),
            name => format!("sort must name a property of the list, not {name}"),
        })?;
    let descending = match direction.trim() {
        d if d.eq_ignore_ascii_case("asc") => false,
        d if d.eq_ignore_ascii_case("desc") => true,
        _ => return Err(format!("sort must be {name}, {name},asc or {name},desc", name = property.name)),
    };
    Ok(Sort { column, descending })
}

/// A value of the property's type; for a time also a range.
fn filter_value(kind: PropertyType, text: &str) -> Option<FilterValue> {
    match kind {
        // No text has a NUL, and PostgreSQL refuses it as a value.
        PropertyType::Text => (!text.contains('\0')).then(|| FilterValue::Text(text.to_owned())),
        PropertyType::Ip => Some(FilterValue::Text(text.parse::<IpAddr>().ok()?.to_string())),
        PropertyType::Network => Some(FilterValue::Text(network(text)?.to_string())),
        PropertyType::List(of) => match filter_value(*of, text)? {
            FilterValue::Text(text) => Some(FilterValue::Item(text)),
            other => Some(other),
        },
        PropertyType::Id(prefix) => is_id(prefix, text).then(|| FilterValue::Text(text.to_owned())),
        // No value is larger than the largest.
        PropertyType::Integer => Some(FilterValue::Integer(integer(text)?.try_into().unwrap_or(i64::MAX))),
        PropertyType::Boolean => text.parse().ok().map(FilterValue::Boolean),
        PropertyType::Enum(names) => names.contains(&text).then(|| FilterValue::Text(text.to_owned())),
        PropertyType::Time => times(text),
        PropertyType::Tags | PropertyType::Object => None,
    }
}

fn network(text: &str) -> Option<Ipv4Net> {
    text.parse().ok().or_else(|| text.parse::<Ipv4Addr>().ok().map(Into::into))
}

fn is_id(prefix: &str, text: &str) -> bool {
    if prefix.is_empty() {
        return text.parse::<FrontdoorId>().is_ok();
    }
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix(prefix).is_some_and(|id| id.len() == 32 && id.bytes().all(hex))
}

/// A time, or `from..to` with either end open.
fn times(text: &str) -> Option<FilterValue> {
    let Some((from, to)) = text.split_once("..") else {
        let at = time(text)?;
        return Some(FilterValue::Times(Some(at), Some(at)));
    };
    let end = |text: &str| if text.is_empty() { Some(None) } else { time(text).map(Some) };
    match (end(from)?, end(to)?) {
        (None, None) => None,
        (from, to) => Some(FilterValue::Times(from, to)),
    }
}

/// RFC 3339. A plus that was not percent-encoded arrives as a space; otherwise no time ends in a space and an offset.
fn time(text: &str) -> Option<Timestamp> {
    let is_rfc3339 = text.bytes().all(|b| b.is_ascii_digit() || b"-:.TtZz+ ".contains(&b));
    let with_plus = || match text.rsplit_once(' ') {
        Some((time, offset)) if time.len() > "2026-01-01".len() => Some(format!("{time}+{offset}")),
        _ => None,
    };
    is_rfc3339.then(|| text.parse().ok().or_else(|| with_plus()?.parse().ok())).flatten()
}

fn wrong_type(property: &Property) -> String {
    format!("Value for {} must be of type {}", property.name, described(property.kind))
}

fn described(kind: PropertyType) -> String {
    match kind {
        PropertyType::Text => "string".to_owned(),
        PropertyType::Ip => "IP address".to_owned(),
        PropertyType::Network => "network: an IPv4 address, or a network in CIDR notation".to_owned(),
        PropertyType::List(of) => described(*of),
        PropertyType::Id("") => "id: a UUID".to_owned(),
        PropertyType::Id(prefix) => format!("id: {prefix} and 32 hexadecimal digits"),
        PropertyType::Integer => "integer".to_owned(),
        PropertyType::Boolean => "boolean: true or false".to_owned(),
        PropertyType::Enum(names) => format!("enum: one of {}", names.join(", ")),
        PropertyType::Time => "timestamp: RFC 3339, or a range from..to of two".to_owned(),
        PropertyType::Tags | PropertyType::Object => "object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::share::PROPERTIES;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<ListQuery, ApiError> {
        fuzz::read(text.as_bytes(), PROPERTIES)
    }

    proptest! {
        #[test]
        fn no_query_panics(
            name in "page|size|sort|name|createdAt|deletedAt|ingressPort|status|tags|tag\\.[a-z]{0,2}|id|.{0,9}",
            value in "-?[0-9]{0,25}|[a-z]{0,5},?(asc|desc)?|[0-9TZ:. +-]{0,40}|2026-01-01T00:00:00Z(\\.\\.)?|.{0,20}",
        ) {
            let _ = Query(vec![(name, value)], None).list(PROPERTIES);
        }

        #[test]
        fn the_link_of_a_page_parses_to_the_same_list(
            names in proptest::collection::vec(".{0,12}", 0..4), tag in "[a-zä&= ]{1,8}", page in 0u64..99,
        ) {
            let mut pairs: Vec<_> = names.into_iter().filter(|n| !n.contains('\0')).map(|n| ("name".to_owned(), n)).collect();
            pairs.push((format!("tag.{tag}"), "a&b=c".to_owned()));
            pairs.push(("sort".to_owned(), "name,desc".to_owned()));
            let query = Query(pairs, None).list(PROPERTIES).unwrap();
            let again = read(&query.at_page(page)).unwrap();
            prop_assert_eq!(again.request.filters, query.request.filters);
            prop_assert_eq!(again.request.sort, query.request.sort);
            prop_assert_eq!(again.request.page, PageRequest { number: page, size: SIZE });
        }
    }

    #[test]
    fn items_of_lists_are_searched_for_a_few_values_only() {
        let query = |count: usize| read(&vec!["allowedSources=10.0.0.0/8"; count].join("&"));
        assert!(query(MOST_ITEMS).is_ok() && query(MOST_ITEMS + 1).is_err());
        assert!(read(&vec!["tag.a=b"; MOST_PARAMETERS].join("&")).is_ok());
    }

    #[test]
    fn times_and_ranges_are_read() {
        let (from, to) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00.5Z");
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        for (text, wanted) in [
            (from.to_owned(), Some((at(from), at(from)))),
            (format!("{from}..{to}"), Some((at(from), at(to)))),
            (format!("{from}.."), Some((at(from), None))),
            (format!("..{to}"), Some((None, at(to)))),
            ("2026-01-01T02:00:00 02:00".to_owned(), Some((at(from), at(from)))),
            ("2026-01-01T02:00:00+02:00".to_owned(), Some((at(from), at(from)))),
            ("..".to_owned(), None),
            (String::new(), None),
            ("2026-01-01".to_owned(), None),
            ("yesterday".to_owned(), None),
            (format!("{from}[UTC]"), None),
            (format!("{from}...{to}"), None),
        ] {
            assert_eq!(times(&text), wanted.map(|(from, to)| FilterValue::Times(from, to)), "{text}");
        }
    }
}
