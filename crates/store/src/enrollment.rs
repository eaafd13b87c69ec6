//! Enrolment codes, and the enrolment of agents.
//!
//! A code is valid for one agent, one hour and five tries. An agent that repeats its request, because the answer was
//! lost, gets the same answer. Invariant: without a code, no request makes the database write.

use crate::{
    Action, ResourceType, Result, Store, StoreError, WriteContext, agent,
    columns::{hex, number, parsed, parsed_option, shown, text, time},
    execution::Execution,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::any::AnyRow;
use wicketgate_model::{AgentId, EnrolRefusal, EnrollmentId, EnvironmentId, FrontdoorId, ResourceName, ZId};

/// Wrong secrets that a code accepts: too few to guess it, and enough for mistakes in copying.
const TRIES: i64 = 5;

/// A code to create.
#[derive(Debug, Clone)]
pub struct NewEnrollment {
    pub id: EnrollmentId,
    /// Of the environment that gets one more replica; a new one is made when left out.
    pub environment: Option<EnvironmentId>,
    pub secret_sha256: [u8; 32],
    pub expires_at: Timestamp,
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

/// The identity that an agent is enrolled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledAgent {
    pub agent: AgentId,
    pub environment: EnvironmentId,
    pub frontdoor: FrontdoorId,
    pub z_id: ZId,
}

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

    /// Uses the code: creates the agent, and its environment unless the code names one. The inner result is the answer
    /// to the agent. A wrong secret is counted.
    pub async fn enrol(
        &self,
        asked: &EnrolAttempt,
        context: &WriteContext,
    ) -> Result<std::result::Result<EnrolledAgent, EnrolRefusal>> {
        // Anyone may send this: only a request that may succeed, or that counts as a try, occupies the writer.
        let found = sqlx::query(BY_ID)
            .bind(asked.enrollment.to_string())
            .fetch_optional(&self.database.readers)
            .await?;
        if let Verdict::Refused(refusal) = verdict(found.as_ref(), asked, context.at)? {
            return Ok(Err(refusal));
        }
        let asked = asked.clone();
        self.write(context, |write| write.enrol(asked).boxed()).await
    }
}

impl Write {
    async fn create_enrollment(&mut self, frontdoor: FrontdoorId, new: NewEnrollment) -> Result<()> {
        if let Some(environment) = new.environment {
            sqlx::query("SELECT 1 FROM environment WHERE id = $1 AND frontdoor = $2 AND deleted_at IS NULL")
                .bind(environment.to_string())
                .bind(frontdoor.to_string())
                .fetch_optional(self.db())
                .await?
                .ok_or(StoreError::Reference { column: &agent::columns::ENVIRONMENT })?;
        }
        sqlx::query(
            "INSERT INTO enrollment (id, frontdoor, environment, secret_sha256, expires_at, tries, created_at, \
             created_by) VALUES ($1, $2, $3, $4, $5, 0, $6, $7)",
        )
        .bind(new.id.to_string())
        .bind(frontdoor.to_string())
        .bind(new.environment.map(|e| e.to_string()))
        .bind(hex(&new.secret_sha256))
        .bind(new.expires_at.as_microsecond())
        .bind(self.at())
        .bind(self.context.actor.clone())
        .execute(self.db())
        .await?;
        let on = Execution { resource_type: ResourceType::Enrollment, resource: &new.id, generation: None };
        self.record(frontdoor, Action::Create, on).await
    }

    async fn enrol(
        &mut self,
        asked: EnrolAttempt,
    ) -> Result<std::result::Result<EnrolledAgent, EnrolRefusal>> {
        let found = sqlx::query(BY_ID).bind(asked.enrollment.to_string()).fetch_optional(self.db()).await?;
        let row = match verdict(found.as_ref(), &asked, self.context.at)? {
            Verdict::Refused(refusal) => return Ok(Err(refusal)),
            Verdict::WrongSecret => {
                sqlx::query("UPDATE enrollment SET tries = tries + 1 WHERE id = $1")
                    .bind(asked.enrollment.to_string())
                    .execute(self.db())
                    .await?;
                return Ok(Err(EnrolRefusal::WrongCode));
            }
            Verdict::EnrolledBefore(agent) => return self.enrolled_before(agent).await,
            Verdict::Good(row) => row,
        };
        let frontdoor = parsed(row, "frontdoor")?;
        let existing = match parsed_option::<EnvironmentId>(row, "environment")? {
            Some(id) => match self.environment_z_id(id).await? {
                Some(z_id) => Some((id, z_id)),
                None => return Ok(Err(EnrolRefusal::WrongCode)),
            },
            None => None,
        };
        let (environment, z_id) = match existing {
            Some(existing) => existing,
            None => (self.insert_environment(frontdoor, &asked).await?, asked.z_id.clone()),
        };
        let agent = self.insert_agent(frontdoor, environment, &asked).await?;
        sqlx::query("UPDATE enrollment SET agent = $1, public_key_sha256 = $2 WHERE id = $3")
            .bind(agent.to_string())
            .bind(hex(&asked.public_key_sha256))
            .bind(asked.enrollment.to_string())
            .execute(self.db())
            .await?;
        Ok(Ok(EnrolledAgent { agent, environment, frontdoor, z_id }))
    }

    async fn enrolled_before(
        &mut self,
        agent: AgentId,
    ) -> Result<std::result::Result<EnrolledAgent, EnrolRefusal>> {
        let found = sqlx::query(
            "SELECT a.environment, a.frontdoor, e.z_id FROM agent a JOIN environment e ON e.id = a.environment \
             WHERE a.id = $1 AND a.barred_at IS NULL",
        )
        .bind(agent.to_string())
        .fetch_optional(self.db())
        .await?;
        let Some(row) = found else { return Ok(Err(EnrolRefusal::Barred)) };
        Ok(Ok(EnrolledAgent {
            agent,
            environment: parsed(&row, "environment")?,
            frontdoor: parsed(&row, "frontdoor")?,
            z_id: parsed(&row, "z_id")?,
        }))
    }

    async fn environment_z_id(&mut self, id: EnvironmentId) -> Result<Option<ZId>> {
        let row = sqlx::query("SELECT z_id FROM environment WHERE id = $1 AND deleted_at IS NULL")
            .bind(id.to_string())
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(|r| parsed(r, "z_id")).transpose()
    }

    async fn insert_environment(
        &mut self,
        frontdoor: FrontdoorId,
        asked: &EnrolAttempt,
    ) -> Result<EnvironmentId> {
        let id = EnvironmentId::new((self.context.fresh)());
        sqlx::query(
            "INSERT INTO environment (id, frontdoor, z_id, name, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $5)",
        )
        .bind(id.to_string())
        .bind(frontdoor.to_string())
        .bind(asked.z_id.as_str())
        .bind(environment_name(&asked.name))
        .bind(self.at())
        .execute(self.db())
        .await?;
        let on = Execution { resource_type: ResourceType::Environment, resource: &id, generation: None };
        self.record(frontdoor, Action::Create, on).await?;
        Ok(id)
    }

    async fn insert_agent(
        &mut self,
        frontdoor: FrontdoorId,
        environment: EnvironmentId,
        asked: &EnrolAttempt,
    ) -> Result<AgentId> {
        let id = AgentId::new((self.context.fresh)());
        sqlx::query(
            "INSERT INTO agent (id, frontdoor, environment, name, created_at, revision) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id.to_string())
        .bind(frontdoor.to_string())
        .bind(environment.to_string())
        .bind(shown(&asked.name))
        .bind(self.at())
        .bind(self.revision)
        .execute(self.db())
        .await?;
        let on = Execution { resource_type: ResourceType::Agent, resource: &id, generation: None };
        self.record(frontdoor, Action::Enrol, on).await?;
        Ok(id)
    }
}

const BY_ID: &str = "SELECT * FROM enrollment WHERE id = $1";

/// How a request to enrol is to be answered.
enum Verdict<'a> {
    Refused(EnrolRefusal),
    /// Refused, and counted as a try.
    WrongSecret,
    EnrolledBefore(AgentId),
    Good(&'a AnyRow),
}

fn verdict<'a>(found: Option<&'a AnyRow>, asked: &EnrolAttempt, at: Timestamp) -> Result<Verdict<'a>> {
    let Some(row) = found else { return Ok(Verdict::Refused(EnrolRefusal::WrongCode)) };
    if number::<i64>(row, "tries")? >= TRIES {
        return Ok(Verdict::Refused(EnrolRefusal::TooManyTries));
    }
    // Both are hashes of 256 random bits: the time of the comparison reveals nothing about the secret.
    if text(row, "secret_sha256")? != hex(&asked.secret_sha256) {
        return Ok(Verdict::WrongSecret);
    }
    if let Some(agent) = parsed_option::<AgentId>(row, "agent")? {
        let same_key = text(row, "public_key_sha256")? == hex(&asked.public_key_sha256);
        return Ok(if same_key {
            Verdict::EnrolledBefore(agent)
        } else {
            Verdict::Refused(EnrolRefusal::Used)
        });
    }
    if time(row, "expires_at")? <= at {
        return Ok(Verdict::Refused(EnrolRefusal::Expired));
    }
    Ok(Verdict::Good(row))
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
