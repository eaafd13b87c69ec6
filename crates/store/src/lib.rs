//! The database: all SQL there is, one text for SQLite and PostgreSQL.
//!
//! Invariants: a write and the record of its execution are one transaction, except that the records of API accounts that end with
//! the one that created them follow; unique indexes are the arbiter of names,
//! ports, slots and peer addresses; values are bound and never part of a statement's text. Time and fresh ids come
//! from the caller, in a [`WriteContext`]. Secrets are sealed before they are bound, and opened when a row is read.

mod action;
mod admin_token;
mod adoption;
mod agent;
mod agent_link;
mod agent_report;
mod api_account;
mod archive;
mod bulk;
mod cache;
mod claim;
mod connection_change;
mod connections;
mod console_session;
mod counts;
mod database;
mod database_fault;
mod database_lock;
mod database_name;
mod database_session;
mod deferred;
mod deleted_tunnel;
mod disk_room;
mod durability;
mod endpoint_place;
mod endpoint_row;
mod endpoint_state;
mod enrollment;
mod enrollment_code;
mod environment;
mod environment_gateways;
mod erasure;
mod error;
mod event;
mod event_retention;
mod event_row;
mod execution;
mod execution_row;
mod failed_authentication;
mod field;
mod frontdoor;
mod gateway;
mod gateway_epoch;
mod gateway_operations;
mod handover_link;
mod held_removals;
mod idempotency;
mod installation;
mod join_token;
mod join_token_list;
mod last_backup;
mod list;
mod list_column;
mod live_servers;
mod location_share;
mod metrics_window;
mod named_row;
mod opening;
mod operator;
mod page;
mod peer_address;
mod peer_claim;
mod placement;
mod previous_keys;
mod provisioned;
mod quota;
mod reconcile;
mod request_time;
mod retention;
mod revocation;
mod row;
mod sealing;
mod secret_key_file;
mod servers;
mod share;
mod share_count;
mod shared_secret;
mod silent_gateways;
mod statement;
mod store;
mod tag;
mod traffic;
mod transaction;
mod tunnel;
mod tunnel_endpoint;
mod tunnel_keys;
mod unique;
mod wakes;
mod write;
mod write_context;
mod write_health;
mod writer;

pub use admin_token::{is_of_up, replace_admin_token};
pub use adoption::AdoptedAgent;
pub use agent::AgentRow;
pub use agent_link::AgentLink;
pub use api_account::{ApiAccountRow, ApiAccountSpec};
pub use archive::{
    Backup, BackupFile, BackupHeader, BackupSource, Import, ImportTarget, TableSum, back_up, export,
};
pub use claim::{Claim, RunningClaim};
pub use connection_change::ConnectionChange;
pub use console_session::{ConsoleSession, NewSession, SessionKind};
pub use counts::Counts;
pub use database_fault::DatabaseFault;
pub use database_lock::{DatabaseLock, LockMode, Ownership};
pub use database_name::database_name;
pub use durability::DurabilityRisk;
pub use endpoint_row::EndpointRow;
pub use endpoint_state::RowReport;
pub use enrollment::{EnrolAttempt, EnrolledAgent, NewEnrollment};
pub use enrollment_code::{EnrollmentCodeRow, EnrollmentCodeState};
pub use environment::EnvironmentRow;
pub use environment_gateways::EnvironmentGateways;
pub use error::{Result, StoreError};
pub use event::EventKind;
pub use event_row::{EventRow, EventSpan};
pub use execution::{Action, ExecutionStatus, ResourceType};
pub use execution_row::ExecutionRow;
pub use failed_authentication::AuthenticationSubject;
pub use field::Tags;
pub use frontdoor::{FrontdoorRow, FrontdoorSpec, Reach};
pub use gateway::{GatewayFacts, GatewayRow, NewGateway};
pub use gateway_epoch::GatewayEpoch;
pub use gateway_operations::{GatewayInUse, GatewayStatus, ListedGateway};
pub use handover_link::{HandoverLinkRow, HandoverLinkSpec, HandoverLinkState, MOST_LINKS};
pub use idempotency::{Claimed, KeptAnswer};
pub use installation::Installation;
pub use join_token::{JoinAttempt, JoinedGateway, NewJoinToken};
pub use join_token_list::JoinTokenRow;
pub use last_backup::LastBackup;
pub use list::{Filter, FilterValue, KnownFalse, ListRequest, Sort};
pub use list_column::{Column, ColumnType};
pub use live_servers::{BEAT_EVERY, ServerRow};
pub use metrics_window::{InvalidWindow, MetricsWindow};
pub use named_row::NamedRow;
pub use operator::{LOCAL_OPERATOR, record_of_operator};
pub use page::{Page, PageRequest};
pub use previous_keys::PreviousKeys;
pub use quota::QuotaUse;
pub use reconcile::{Change, Resource, Revision, StatusUpdate};
pub use request_time::RequestTime;
pub use revocation::{NotARevocation, Revocation};
pub use secret_key_file::SecretKeyFile;
pub use servers::ServerFacts;
pub use share::{ShareRow, ShareSpec};
pub use shared_secret::{SharedSecret, SharedSecretName};
pub use store::Store;
pub use traffic::{Sample, TrafficReport, TrafficScope};
pub use tunnel::{TunnelChange, TunnelRow, TunnelSpec};
pub use wicketgate_seal::{InvalidSecretKeys, SecretKeys};
pub use write_context::{RequestOrigin, WriteContext};

/// The columns of lists, by resource.
pub mod column {
    pub use crate::{
        agent::columns as agent, api_account::columns as api_account,
        connection_change::columns as connection_change, enrollment_code::columns as enrollment_code,
        environment::columns as environment, execution_row::columns as execution,
        frontdoor::columns as frontdoor, gateway_operations::columns as gateway,
        handover_link::columns as handover_link, join_token_list::columns as join_token,
        share::columns as share, tunnel::columns as tunnel, tunnel_endpoint::columns as connection,
    };
}
