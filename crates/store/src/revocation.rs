//! What was taken away: deletions, and keys that were replaced. A restored database does not know those of after its backup, so
//! that a server keeps a record of them apart from it.
//!
//! A revocation is a line of text: time, execution, action, type, resource, Frontdoor (or `-`) and actor.

use crate::{
    Action, ResourceType, Result, Store, StoreError, TunnelChange, TunnelSpec, WriteContext, row::rows,
};
use jiff::Timestamp;
use std::{fmt, str::FromStr};
use uuid::Builder;
use wicketgate_model::{ExecutionId, FrontdoorId, LoadBalancerPools, PreSharedKey};

/// Of one reading: a later one has the rest.
const AT_ONCE: u32 = 1000;

rows! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Revocation {
        pub created_at: Timestamp,
        pub id: ExecutionId,
        pub action: Action,
        pub resource_type: ResourceType,
        pub resource: String,
        /// `None` for an organization's own resources.
        pub frontdoor: Option<FrontdoorId>,
        pub actor: String,
    }
}

/// The line is not one of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a line like `TIME EXECUTION DELETE TYPE RESOURCE FRONTDOOR ACTOR`")]
pub struct NotARevocation;

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { created_at, id, action, resource_type, resource, frontdoor, actor } = self;
        write!(f, "{created_at} {id} {action} {resource_type} {resource} ")?;
        match frontdoor {
            Some(frontdoor) => write!(f, "{frontdoor} ")?,
            None => f.write_str("- ")?,
        }
        // The last: it may have spaces.
        actor.chars().filter(|c| !c.is_control()).try_for_each(|c| write!(f, "{c}"))
    }
}

impl FromStr for Revocation {
    type Err = NotARevocation;

    fn from_str(line: &str) -> Result<Self, NotARevocation> {
        let words: Vec<_> = line.splitn(7, ' ').collect();
        let [at, id, action, resource_type, resource, frontdoor, actor] = words[..] else {
            return Err(NotARevocation);
        };
        Ok(Self {
            created_at: parsed(at)?,
            id: parsed(id)?,
            action: parsed(action)?,
            resource_type: parsed(resource_type)?,
            resource: resource.to_owned(),
            frontdoor: if frontdoor == "-" { None } else { Some(parsed(frontdoor)?) },
            actor: actor.to_owned(),
        })
    }
}

impl Revocation {
    /// No execution of this time, or of a later one, has a lesser id: ids are in the order of time, to the millisecond.
    pub fn first_at(time: Timestamp) -> ExecutionId {
        let millisecond = time.as_millisecond().try_into().unwrap_or(0);
        ExecutionId::new(Builder::from_unix_timestamp_millis(millisecond, &[0; 10]).into_uuid())
    }
}

fn parsed<T: FromStr>(text: &str) -> Result<T, NotARevocation> {
    text.parse().map_err(|_| NotARevocation)
}

impl Store {
    /// Those from this execution on, the oldest first; no more than one reading takes.
    pub async fn revocations(&self, from: ExecutionId) -> Result<Vec<Revocation>> {
        let select = "SELECT created_at, id, action, resource_type, resource, NULLIF(frontdoor, '') AS frontdoor, actor \
                      FROM execution WHERE id >= $1 AND action IN ('DELETE', 'ROTATE_KEY') ORDER BY id LIMIT $2";
        self.all(select, &[&from, &AT_ONCE]).await
    }

    /// Whether the database does not know this revocation, and has what it took away. Of a key that was replaced: whether it has
    /// the one of before.
    pub async fn has_missed(&self, revocation: &Revocation, now: Timestamp) -> Result<bool> {
        let known: Option<(ExecutionId,)> =
            self.find("SELECT id FROM execution WHERE id = $1", &[&revocation.id]).await?;
        if known.is_some() {
            return Ok(false);
        }
        let select = match revocation.resource_type {
            ResourceType::ApiAccount => "SELECT id FROM api_account WHERE id = $1 AND revoked_at IS NULL",
            ResourceType::Agent => "SELECT id FROM agent WHERE id = $1 AND barred_at IS NULL",
            ResourceType::HandoverLink => "SELECT id FROM handover_link WHERE id = $1 AND revoked_at IS NULL",
            ResourceType::Share => {
                "SELECT id FROM ipsec_share WHERE id = $1 AND status NOT IN ('DELETING', 'DELETED')"
            }
            ResourceType::Tunnel if revocation.action == Action::RotateKey => {
                return self.has_key_of_before(revocation).await;
            }
            ResourceType::Tunnel => {
                "SELECT id FROM ipsec_tunnel WHERE id = $1 AND status NOT IN ('DELETING', 'DELETED')"
            }
            ResourceType::Environment => "SELECT id FROM environment WHERE id = $1 AND deleted_at IS NULL",
            ResourceType::Frontdoor => "SELECT id FROM frontdoor WHERE id = $1 AND deleted_at IS NULL",
            ResourceType::Enrollment => {
                let select = "SELECT id FROM enrollment WHERE id = $1 AND agent IS NULL AND expires_at > $2";
                let usable: Option<(String,)> = self.find(select, &[&revocation.resource, &now]).await?;
                return Ok(usable.is_some());
            }
            ResourceType::Gateway => "SELECT id FROM gateway WHERE id = $1 AND deleted_at IS NULL",
            ResourceType::JoinToken => {
                let select =
                    "SELECT id FROM join_token WHERE id = $1 AND used_by IS NULL AND expires_at > $2";
                let usable: Option<(String,)> = self.find(select, &[&revocation.resource, &now]).await?;
                return Ok(usable.is_some());
            }
        };
        let live: Option<(String,)> = self.find(select, &[&revocation.resource]).await?;
        Ok(live.is_some())
    }

    /// Whether the key of a live tunnel was not replaced since the revocation did so.
    async fn has_key_of_before(&self, revocation: &Revocation) -> Result<bool> {
        let select = "SELECT id FROM ipsec_tunnel t WHERE id = $1 AND status NOT IN ('DELETING', 'DELETED') \
                      AND NOT EXISTS (SELECT 1 FROM execution e WHERE e.resource_type = 'ipsec-tunnel' AND e.resource = t.id \
                      AND e.action = 'ROTATE_KEY' AND e.created_at >= $2)";
        let live: Option<(String,)> =
            self.find(select, &[&revocation.resource, &revocation.created_at]).await?;
        Ok(live.is_some())
    }

    /// Gives the tunnel of a key that was replaced another new one, and ends its links and what uses the old key: nothing here knows
    /// the key that it had.
    pub async fn replace_key_again(
        &self,
        revocation: &Revocation,
        key: PreSharedKey,
        context: &WriteContext,
    ) -> Result<()> {
        let (frontdoor, id) = (revocation.frontdoor.ok_or(StoreError::Missing)?, id(&revocation.resource)?);
        let row = self.tunnel(frontdoor, id).await?.ok_or(StoreError::Missing)?;
        let change = TunnelChange {
            expected: row.generation,
            spec: TunnelSpec { pre_shared_key: Some(key), ..row.spec },
            previous_until: context.at,
            cuts: true,
            action: Action::RotateKey,
        };
        // Its network stays, and so does its address.
        let pools = LoadBalancerPools::ipsec();
        self.replace_tunnel(frontdoor, id, &change, &pools, context).await.map(drop)
    }

    /// Whether it has removed an agent or an environment that the database has never had: both came after the backup.
    pub async fn has_never_known(&self, revocation: &Revocation) -> Result<bool> {
        let select = match (revocation.action, revocation.resource_type) {
            (Action::Delete, ResourceType::Agent) => "SELECT id FROM agent WHERE id = $1",
            (Action::Delete, ResourceType::Environment) => "SELECT id FROM environment WHERE id = $1",
            _ => return Ok(false),
        };
        let row: Option<(String,)> = self.find(select, &[&revocation.resource]).await?;
        Ok(row.is_none())
    }

    /// Deletes what the revocation has deleted, if it is there.
    pub async fn revoke_again(&self, revocation: &Revocation, context: &WriteContext) -> Result<()> {
        let Revocation { action, resource_type, resource, frontdoor, .. } = revocation;
        if *action != Action::Delete {
            return Ok(());
        }
        let of = frontdoor.ok_or(StoreError::Missing);
        match resource_type {
            ResourceType::ApiAccount => self.revoke_api_account(id(resource)?, context).await,
            ResourceType::Agent => self.bar_agent(of?, id(resource)?, context).await,
            ResourceType::HandoverLink => self.revoke_handover_link(of?, id(resource)?, context).await,
            ResourceType::Share => self.delete_share(of?, id(resource)?, context).await.map(drop),
            ResourceType::Tunnel => self.delete_tunnel(of?, id(resource)?, context).await.map(drop),
            ResourceType::Environment => self.delete_environment(of?, id(resource)?, context).await,
            ResourceType::Frontdoor => self.delete_frontdoor(id(resource)?, context).await,
            ResourceType::Enrollment => self.revoke_enrollment(of?, id(resource)?, context).await.map(drop),
            ResourceType::Gateway => self.bar_gateway(id(resource)?, context).await,
            ResourceType::JoinToken => self.revoke_join_token(id(resource)?, context).await.map(drop),
        }
    }
}

fn id<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| StoreError::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn a_line_is_read_as_it_was_written(
            seconds in 0_i64..4_000_000_000, n: u128, actor in "[ -~]{1,60}", has_frontdoor: bool, rotates: bool,
        ) {
            let revocation = Revocation {
                created_at: Timestamp::from_second(seconds).unwrap(),
                id: ExecutionId::new(Uuid::from_u128(n)),
                action: if rotates { Action::RotateKey } else { Action::Delete },
                resource_type: ResourceType::Agent,
                resource: "agt-1".to_owned(),
                frontdoor: has_frontdoor.then(|| FrontdoorId::new(Uuid::from_u128(n))),
                actor,
            };
            prop_assert_eq!(revocation.to_string().parse(), Ok(revocation));
        }

        #[test]
        fn another_line_is_none(line in ".{0,120}") {
            prop_assert!(line.parse::<Revocation>().is_err());
        }
    }
}
