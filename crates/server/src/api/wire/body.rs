//! A request's body: a JSON object of bounded size that arrives in a bounded time.

use super::fields::printable;
use crate::error::ApiError;
use axum::{
    body::{Body as HttpBody, Bytes, to_bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, header::CONTENT_TYPE},
};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::{fmt, time::Duration};

/// Bytes; far more than any resource needs.
pub(in crate::api) const LARGEST: usize = 1 << 20;
/// Bytes; a few tokens and a passphrase.
const LARGEST_SMALL: usize = 16 << 10;
/// Enough for a megabyte over a slow line.
const ARRIVAL: Duration = Duration::from_secs(20);

/// A body that was read but not parsed: authorization is checked first.
#[derive(Debug)]
pub(in crate::api) struct Body {
    is_json: bool,
    bytes: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let bytes = read(request.into_body()).await?;
        Ok(Self { is_json, bytes })
    }
}

/// A body of a stranger, who has no reason to send much.
#[derive(Debug)]
pub(in crate::api) struct SmallBody(pub(in crate::api) Body);

impl<S: Send + Sync> FromRequest<S> for SmallBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let bytes = read_up_to(LARGEST_SMALL, request.into_body()).await?;
        Ok(Self(Body { is_json, bytes }))
    }
}

pub(in crate::api) async fn read(body: HttpBody) -> Result<Bytes, ApiError> {
    read_up_to(LARGEST, body).await
}

async fn read_up_to(most: usize, body: HttpBody) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(ARRIVAL, to_bytes(body, most)).await;
    read.map_err(|_| ApiError::too_slow())?.map_err(|e| {
        let is_limit = std::iter::successors(Some(&e as &dyn std::error::Error), |e| e.source())
            .any(|e| e.to_string() == "length limit exceeded");
        if is_limit { ApiError::too_large(most) } else { ApiError::bad_request("The body was cut short") }
    })
}

/// `application/json`, or a format that is JSON (RFC 6839 §3.1), like a merge patch.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

impl Body {
    /// Of a request that says that it is JSON.
    #[cfg(any(test, fuzzing))]
    pub(in crate::api) fn json(bytes: &[u8]) -> Self {
        Self { is_json: true, bytes: Bytes::copy_from_slice(bytes) }
    }

    pub(in crate::api) fn object(self) -> Result<Map<String, Value>, ApiError> {
        if !self.is_json {
            return Err(ApiError::not_json());
        }
        match serde_json::from_slice(&self.bytes) {
            Ok(Strict(Value::Object(object))) => Ok(object),
            Ok(_) => Err(ApiError::bad_request("Value for the body must be of type object")),
            Err(e) if e.is_data() => Err(ApiError::bad_request(e.to_string())),
            Err(e) => Err(ApiError::bad_request(format!("The body is not JSON: {e}"))),
        }
    }

    /// The bytes as received, for a body in another format.
    pub(in crate::api) fn bytes(self) -> Bytes {
        self.bytes
    }

    /// For a request whose body is optional: a missing body counts as an empty object.
    pub(in crate::api) fn object_or_nothing(self) -> Result<Map<String, Value>, ApiError> {
        if self.bytes.is_empty() { Ok(Map::new()) } else { self.object() }
    }
}

/// JSON that every parser reads the same: no object has a name twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Strictly).map(Strict)
    }
}

struct Strictly;

/// Visits values that have no names: they are converted as they are.
macro_rules! scalars {
    ($($visit:ident: $scalar:ty),+) => {
        $(fn $visit<E: Error>(self, scalar: $scalar) -> Result<Value, E> {
            Ok(scalar.into())
        })+
    };
}

impl<'de> Visitor<'de> for Strictly {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    scalars! { visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str, visit_string: String }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("{} occurs twice", printable(&name))));
            }
            let Strict(value) = map.next_value()?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9f64..1e9).prop_map(|f| json!(f)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]{1,2}", inner, 0..4).prop_map(|m| json!(m)),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_without_duplicate_names_is_read_unchanged(value in any_json()) {
            let Strict(read) = serde_json::from_str(&value.to_string()).unwrap();
            prop_assert_eq!(read, value);
        }

        #[test]
        fn a_duplicate_name_is_detected_at_any_depth(inner in any_json(), depth in 0usize..5) {
            let twice = format!("{{\"a\": {inner}, \"b\": 1, \"a\": {inner}}}");
            let text = format!("{}{twice}{}", "[{\"x\": ".repeat(depth), "}]".repeat(depth));
            let refused = serde_json::from_str::<Strict>(&text).err().unwrap();
            prop_assert!(refused.is_data() && refused.to_string().starts_with("a occurs twice"), "{}", refused);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_times_out() {
        let begun = futures_util::stream::iter([Ok::<_, std::io::Error>("{")]);
        let body =
            HttpBody::from_stream(futures_util::StreamExt::chain(begun, futures_util::stream::pending()));
        let begin = tokio::time::Instant::now();
        assert_eq!(read(body).await.unwrap_err(), ApiError::too_slow());
        assert!((ARRIVAL..ARRIVAL * 2).contains(&begin.elapsed()));
    }
}
