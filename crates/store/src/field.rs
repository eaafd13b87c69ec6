//! Values of the domain, as columns store them: text or a 64-bit integer, and NULL for `None`.

use crate::{Result, StoreError};
use hex::FromHex;
use jiff::Timestamp;
use sqlx::{
    Any, ColumnIndex, Row, Type,
    any::{AnyArguments, AnyRow},
    decode::Decode,
    encode::Encode,
};
use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr},
};
use uuid::Uuid;
use wicketgate_model::{
    AgentId, AgentName, AllowedSources, ApiAccountId, Connection, ConnectionFault, ConnectionState,
    Description, EnrollmentId, EnvironmentId, Era, EspMode, EspProposals, ExecutionId, FailureReason,
    FrontdoorId, GatewayId, Generation, HandoverLinkId, HealthCheckType, IdleTimeout, IkeProposals,
    IngressPort, JoinTokenId, LocationId, MaxConnections, MaxUses, NamespaceName, PeerAddress, PeerCidr,
    PeerId, ProbeInterval, ProxyProtocol, Quotas, Reason, Redundancy, ResourceName, ServerId, ShareId,
    Status, Target, TunnelId, ZId,
};
use wicketgate_seal::SecretKeys;

/// Labels that a caller attaches to a share or a tunnel.
pub type Tags = std::collections::BTreeMap<String, String>;

pub(crate) type Query = sqlx::query::Query<'static, Any, AnyArguments>;

/// A value of one column.
pub(crate) trait Field: Sized {
    type Stored: Stored;

    fn store(&self) -> sqlx::Result<Self::Stored>;

    /// `None`: this version stores no such value.
    fn load(stored: Self::Stored) -> Option<Self>;
}

/// A type that a column of both databases has.
pub(crate) trait Stored:
    Type<Any> + for<'r> Decode<'r, Any> + for<'q> Encode<'q, Any> + Send + 'static
{
}

impl<T: Type<Any> + for<'r> Decode<'r, Any> + for<'q> Encode<'q, Any> + Send + 'static> Stored for T {}

/// A value that a statement refers to by its number: `$1` is the first.
pub(crate) trait Argument: Sync {
    fn bind(&self, to: Query) -> sqlx::Result<Query>;
}

impl<T: Field + Sync> Argument for T {
    fn bind(&self, to: Query) -> sqlx::Result<Query> {
        Ok(to.bind(self.store()?))
    }
}

impl Argument for &str {
    fn bind(&self, to: Query) -> sqlx::Result<Query> {
        Some(*self).bind(to)
    }
}

impl Argument for Option<&str> {
    fn bind(&self, to: Query) -> sqlx::Result<Query> {
        Ok(to.bind(self.map(str::to_owned)))
    }
}

/// A row that a statement returned, and the keys that open its sealed values.
pub(crate) struct Found<'r> {
    pub(crate) row: &'r AnyRow,
    pub(crate) keys: &'r SecretKeys,
}

/// The value of a column, by its name or its position.
pub(crate) fn get<T: Field>(found: &Found<'_>, column: impl ColumnIndex<AnyRow> + Display) -> Result<T> {
    let stored = found.row.try_get(&column)?;
    T::load(stored).ok_or_else(|| StoreError::Corrupt { column: column.to_string() })
}

impl<T: Field> Field for Option<T>
where
    Option<T::Stored>: Stored,
{
    type Stored = Option<T::Stored>;

    fn store(&self) -> sqlx::Result<Self::Stored> {
        self.as_ref().map(T::store).transpose()
    }

    fn load(stored: Self::Stored) -> Option<Self> {
        match stored {
            Some(stored) => T::load(stored).map(Some),
            None => Some(None),
        }
    }
}

/// Declares how values are stored: `$type: $stored, $store, $load;`.
macro_rules! fields {
    ($($type:ty: $stored:ty, $store:expr, $load:expr;)+) => { $(
        impl $crate::field::Field for $type {
            type Stored = $stored;

            fn store(&self) -> sqlx::Result<$stored> {
                let store: fn(&Self) -> sqlx::Result<$stored> = $store;
                store(self)
            }

            fn load(stored: $stored) -> Option<Self> {
                let load: fn($stored) -> Option<Self> = $load;
                load(stored)
            }
        }
    )+ };
}
pub(crate) use fields;

/// Values that are stored as the text that `Display` writes and `FromStr` reads.
macro_rules! text_fields {
    ($($type:ty),+) => {
        $crate::field::fields! { $($type: String, |value| Ok(value.to_string()), |text| text.parse().ok();)+ }
    };
}
pub(crate) use text_fields;

/// Values that are stored as JSON without spaces.
macro_rules! json_fields {
    ($($type:ty),+) => {
        $crate::field::fields! { $($type: String,
            |value| serde_json::to_string(value).map_err(|e| sqlx::Error::Encode(e.into())),
            |text| serde_json::from_str(&text).ok();)+ }
    };
}

/// Values that are stored as an integer, which `get` returns.
macro_rules! number_fields {
    ($($type:ty),+) => {
        $crate::field::fields! { $($type: i64, |value| Ok(value.get().into()), |n| n.try_into().ok();)+ }
    };
}

text_fields!(String, IpAddr, Ipv4Addr, Uuid);
text_fields!(
    AgentId,
    ApiAccountId,
    EnrollmentId,
    EnvironmentId,
    ExecutionId,
    FrontdoorId,
    GatewayId,
    ServerId
);
text_fields!(HandoverLinkId, JoinTokenId);
text_fields!(ShareId, TunnelId, ZId, LocationId, NamespaceName, PeerId, ResourceName, AgentName, Description);
text_fields!(
    PeerAddress,
    PeerCidr,
    Target,
    ProxyProtocol,
    HealthCheckType,
    ConnectionFault,
    ConnectionState,
    FailureReason,
    EspMode,
    Reason,
    Redundancy,
    Status
);
json_fields!(AllowedSources, Connection, EspProposals, IkeProposals, Quotas, Tags, Vec<(String, String)>);
number_fields!(IdleTimeout, IngressPort, MaxConnections, MaxUses, ProbeInterval);
fields! {
    i64: i64, |n| Ok(*n), Some;
    u16: i64, |n| Ok((*n).into()), |n| n.try_into().ok();
    u32: i64, |n| Ok((*n).into()), |n| n.try_into().ok();
    // Counts beyond what fits would take centuries; they stop there.
    u64: i64, |n| Ok(i64::try_from(*n).unwrap_or(i64::MAX)), |n| n.try_into().ok();
    bool: i64, |is| Ok((*is).into()), |n| Some(n != 0);
    Timestamp: i64, |at| Ok(at.as_microsecond()), |n| Timestamp::from_microsecond(n).ok();
    Era: i64, |n| n.get().store(), |n| u64::load(n).map(Era::new);
    Generation: i64, |n| n.get().store(), |n| u64::load(n).map(Generation::new);
    [u8; 32]: String, |bytes| Ok(hex::encode(bytes)), |text| FromHex::from_hex(text).ok();
    // Words, separated by spaces.
    Vec<String>: String, |words| Ok(words.join(" ")), |text| Some(text.split(' ').map(str::to_owned).collect());
    Vec<FrontdoorId>: String,
        |ids| Ok(ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        |text| text.split(' ').map(|id| id.parse().ok()).collect();
}

/// Text from outside, short and printable: it is shown in pages and terminals, and PostgreSQL's TEXT holds no NUL.
pub(crate) fn shown(text: &str) -> String {
    /// Characters. Longer than any host name (RFC 1035 §2.3.4) and any sentence.
    const LONGEST: usize = 1000;
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}
