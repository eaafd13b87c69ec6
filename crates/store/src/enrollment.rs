//! Enrolment codes, and the enrolment of agents.
//!
//! A code is valid for one agent, one hour and five tries. An agent that repeats its request, because the answer was
//! lost, gets the same answer until the code expires. A code has the place of its agent, and of its environment, in the
//! quotas of its Frontdoor.
//! Invariant: without a code, no request makes the database write.

use crate::{
    Action, ResourceType, Result, Store, StoreError, WriteContext, agent,
    execution::Execution,
    field::shown,
    row::{rows, specs},
    statement::Assignments,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::{
    AgentId, EnrolRefusal, EnrollmentId, EnvironmentId, FrontdoorId, QuotaKind, ResourceName, ZId,
};

/// Wrong secrets that a code accepts: too few to guess it, and enough for mistakes in copying.
pub(crate) const TRIES: u32 = 5;

specs! {
    /// A code to create.
    #[derive(Debug, Clone)]
    pub struct NewEnrollment {
        pub id: EnrollmentId,
        /// Of the environment that gets one more replica; a new one is made when left out.
        pub environment: Option<EnvironmentId>,
        pub secret_sha256: [u8; 32],
        pub expires_at: Timestamp,
    }
}

/// An agent's request to enrol.
#[derive(Debug, Clone)]
pub struct EnrolAttempt {
    pub enrollment: EnrollmentId,
    pub secret_sha256: [u8; 32],
    pub public_key_sha256: [u8; 32],
    /// The agent's host name, as it reported it.
    pub name: String,
    /// A fresh one, in case an environment is created.
    pub z_id: ZId,
}

rows! {
    /// The identity that an agent is enrolled with.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct EnrolledAgent {
        pub agent: AgentId,
        pub environment: EnvironmentId,
        pub frontdoor: FrontdoorId,
        pub z_id: ZId,
    }

    struct EnrollmentRow {
        frontdoor: FrontdoorId,
        spec: NewEnrollment,
        /// Requests with a wrong secret.
        tries: u32,
        /// The agent that used the code.
        agent: Option<AgentId>,
        public_key_sha256: Option<[u8; 32]>,
    }
}

/// The answer to an agent.
type Answer = std::result::Result<EnrolledAgent, EnrolRefusal>;

impl Store {
    pub async fn create_enrollment(
        &self,
        frontdoor: FrontdoorId,
        new: &NewEnrollment,
        context: &WriteContext,
    ) -> Result<()> {
        let new = new.clone();
        self.write(context, move |write| write.create_enrollment(frontdoor, new).boxed()).await
    }

    /// Of a code, also if it was used or has expired.
    pub async fn enrollment_frontdoor(&self, id: EnrollmentId) -> Result<Option<FrontdoorId>> {
        let row: Option<(FrontdoorId,)> =
            self.find("SELECT frontdoor FROM enrollment WHERE id = $1", &[&id]).await?;
        Ok(row.map(|(frontdoor,)| frontdoor))
    }

    /// Uses the code: creates the agent, and its environment unless the code names one. The inner result is the answer
    /// to the agent. A wrong secret is counted.
    pub async fn enrol(&self, asked: &EnrolAttempt, context: &WriteContext) -> Result<Answer> {
        // Anyone may send this: only a request that may succeed, or that counts as a try, occupies the writer.
        let found = self.find(BY_ID, &[&asked.enrollment]).await?;
        if let Verdict::Refused(refusal) = verdict(found, asked, context.at) {
            return Ok(Err(refusal));
        }
        let asked = asked.clone();
        self.write(context, |write| write.enrol(asked).boxed()).await
    }
}

impl Write {
    async fn create_enrollment(&mut self, frontdoor: FrontdoorId, new: NewEnrollment) -> Result<()> {
        if let Some(environment) = new.environment {
            let found = self.environment_updated(frontdoor, environment).await?;
            found.ok_or(StoreError::Reference { column: &agent::columns::ENVIRONMENT })?;
        } else {
            self.need_room(&[frontdoor], QuotaKind::Environments).await?;
        }
        self.need_room(&[frontdoor], QuotaKind::EnrollmentCodes).await?;
        self.need_room(&[frontdoor], QuotaKind::Agents).await?;
        let set = Assignments::of(&new).and(&[
            ("frontdoor", &frontdoor),
            ("tries", &0_u32),
            ("created_at", &self.context.at),
            ("created_by", &self.context.actor),
        ]);
        self.tx.run(set.insert("enrollment", "")?).await?;
        self.record(frontdoor, Action::Create, Execution::of(ResourceType::Enrollment, &new.id))
            .await
            .map(drop)
    }

    async fn enrol(&mut self, asked: EnrolAttempt) -> Result<Answer> {
        let found = self.tx.find(BY_ID, &[&asked.enrollment]).await?;
        let EnrollmentRow { frontdoor, spec, .. } = match verdict(found, &asked, self.context.at) {
            Verdict::Refused(refusal) => return Ok(Err(refusal)),
            Verdict::WrongSecret => {
                let count = "UPDATE enrollment SET tries = tries + 1 WHERE id = $1";
                self.tx.execute(count, &[&asked.enrollment]).await?;
                return Ok(Err(EnrolRefusal::WrongCode));
            }
            Verdict::EnrolledBefore(agent) => {
                let select = "SELECT a.id AS agent, a.environment, a.frontdoor, e.z_id FROM agent a \
                              JOIN environment e ON e.id = a.environment WHERE a.id = $1 AND a.barred_at IS NULL";
                return Ok(self.tx.find(select, &[&agent]).await?.ok_or(EnrolRefusal::Barred));
            }
            Verdict::Good(row) => row,
        };
        let (environment, z_id) = match spec.environment {
            Some(id) => {
                let select = "SELECT id, z_id FROM environment WHERE id = $1 AND deleted_at IS NULL";
                match self.tx.find(select, &[&id]).await? {
                    Some(existing) => existing,
                    None => return Ok(Err(EnrolRefusal::WrongCode)),
                }
            }
            None => {
                let id = EnvironmentId::new((self.context.fresh)());
                self.insert_environment(id, frontdoor, (&asked.name, &asked.z_id)).await?;
                (id, asked.z_id.clone())
            }
        };
        let agent = self.insert_agent(frontdoor, environment, &asked).await?;
        let used = "UPDATE enrollment SET agent = $1, public_key_sha256 = $2 WHERE id = $3";
        self.tx.execute(used, &[&agent, &asked.public_key_sha256, &asked.enrollment]).await?;
        Ok(Ok(EnrolledAgent { agent, environment, frontdoor, z_id }))
    }

    /// Named by the host of its first agent.
    pub(crate) async fn insert_environment(
        &mut self,
        id: EnvironmentId,
        frontdoor: FrontdoorId,
        (host, z_id): (&str, &ZId),
    ) -> Result<()> {
        let insert = "INSERT INTO environment (id, frontdoor, z_id, name, created_at, updated_at) \
                      VALUES ($1, $2, $3, $4, $5, $5)";
        let name = environment_name(host);
        self.tx.execute(insert, &[&id, &frontdoor, z_id, &name, &self.context.at]).await?;
        self.record(frontdoor, Action::Create, Execution::of(ResourceType::Environment, &id)).await.map(drop)
    }

    async fn insert_agent(
        &mut self,
        frontdoor: FrontdoorId,
        environment: EnvironmentId,
        asked: &EnrolAttempt,
    ) -> Result<AgentId> {
        let id = AgentId::new((self.context.fresh)());
        let name = shown(&asked.name);
        let set = Assignments::new(&[
            ("id", &id),
            ("frontdoor", &frontdoor),
            ("environment", &environment),
            ("name", &name),
            ("public_key_sha256", &asked.public_key_sha256),
            ("created_at", &self.context.at),
            ("revision", &self.revision),
        ]);
        self.tx.run(set.insert("agent", "")?).await?;
        self.record(frontdoor, Action::Enrol, Execution::of(ResourceType::Agent, &id)).await?;
        Ok(id)
    }
}

const BY_ID: &str = "SELECT * FROM enrollment WHERE id = $1";

/// How a request to enrol is to be answered.
enum Verdict {
    Refused(EnrolRefusal),
    /// Refused, and counted as a try.
    WrongSecret,
    EnrolledBefore(AgentId),
    Good(EnrollmentRow),
}

fn verdict(found: Option<EnrollmentRow>, asked: &EnrolAttempt, at: Timestamp) -> Verdict {
    match found {
        None => Verdict::Refused(EnrolRefusal::WrongCode),
        Some(row) if row.tries >= TRIES => Verdict::Refused(EnrolRefusal::TooManyTries),
        // Both are hashes of 256 random bits: the time of the comparison reveals nothing about the secret.
        Some(row) if row.spec.secret_sha256 != asked.secret_sha256 => Verdict::WrongSecret,
        // Also for the agent that used it: a code and a key that are found later are worth nothing.
        Some(row) if row.spec.expires_at <= at => Verdict::Refused(EnrolRefusal::Expired),
        Some(EnrollmentRow { agent: Some(agent), public_key_sha256, .. }) => {
            if public_key_sha256 == Some(asked.public_key_sha256) {
                Verdict::EnrolledBefore(agent)
            } else {
                Verdict::Refused(EnrolRefusal::Used)
            }
        }
        Some(row) => Verdict::Good(row),
    }
}

/// The name of an environment until a user changes it: the agent's host name, as far as it is a valid name.
fn environment_name(host: &str) -> String {
    let label = host.split('.').next().unwrap_or_default();
    let kept: String = label.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    let name = kept.trim_matches('-');
    if name.parse::<ResourceName>().is_ok() { name.to_owned() } else { "environment".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_host_name_yields_an_environment_name(host in ".{0,80}") {
            prop_assert!(environment_name(&host).parse::<ResourceName>().is_ok());
        }
    }

    #[test]
    fn a_host_name_keeps_its_first_label() {
        assert_eq!(environment_name("dc-1.example.org"), "dc-1");
        assert_eq!(environment_name("-._"), "environment");
    }
}
