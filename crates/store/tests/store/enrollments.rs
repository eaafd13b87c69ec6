//! Enrolment codes.

use crate::{
    database::on_each,
    site::{after, asked, changes, context, epoch, frontdoor, link, now},
};
use uuid::Uuid;
use wicketgate_model::{EnrolRefusal, EnrollmentId};
use wicketgate_store::{NewEnrollment, Revision, StoreError, WriteContext};

#[test]
fn a_code_enrols_one_agent() {
    on_each(|store| async move {
        let frontdoor = frontdoor(&store).await;
        let code = async |environment| {
            let id = EnrollmentId::new(Uuid::now_v7());
            let new = NewEnrollment { id, environment, secret_sha256: [1; 32], expires_at: after(3600) };
            store.create_enrollment(frontdoor, &new, &context()).await.map(|()| id)
        };
        let enrol = async |id, secret, key, at| {
            store.enrol(&asked(id, secret, key), &WriteContext { at, ..context() }).await.unwrap()
        };
        let first = code(None).await.unwrap();
        assert_eq!(enrol(first, 2, 1, now()).await, Err(EnrolRefusal::WrongCode));
        // Enrolment needs no other authentication: an attempt with an invalid code must write nothing.
        let before = changes(&store, Revision::default()).await.revision;
        assert_eq!(enrol(EnrollmentId::new(Uuid::now_v7()), 1, 1, now()).await, Err(EnrolRefusal::WrongCode));
        assert_eq!(enrol(first, 1, 1, after(3600)).await, Err(EnrolRefusal::Expired));
        assert_eq!(changes(&store, Revision::default()).await.revision, before);
        let agent = enrol(first, 1, 1, now()).await.unwrap();
        // After a lost answer, the same agent may repeat its request until the code expires. Another agent is refused.
        assert_eq!(enrol(first, 1, 1, after(3599)).await, Ok(agent.clone()));
        assert_eq!(enrol(first, 1, 1, after(3600)).await, Err(EnrolRefusal::Expired));
        assert_eq!(enrol(first, 1, 2, now()).await, Err(EnrolRefusal::Used));
        // It cannot be revoked any more: its agent is told.
        let used = store.revoke_enrollment(frontdoor, first, &context()).await.unwrap();
        assert_eq!(used, Some(agent.agent));
        assert_eq!(enrol(first, 1, 1, now()).await, Ok(agent.clone()));
        let row = store.environment_by_z_id(frontdoor, &agent.z_id).await.unwrap().unwrap();
        assert_eq!((row.name.as_str(), row.active), ("dc-1", false));
        store.agent_connected(&epoch(&store).await, &link(agent.agent), after(2)).await.unwrap();
        assert!(store.environment(frontdoor, agent.environment).await.unwrap().unwrap().active);

        let late = code(None).await.unwrap();
        assert_eq!(enrol(late, 1, 3, after(3600)).await, Err(EnrolRefusal::Expired));
        let guessed = code(None).await.unwrap();
        for _ in 0..5 {
            assert_eq!(enrol(guessed, 2, 3, now()).await, Err(EnrolRefusal::WrongCode));
        }
        assert_eq!(enrol(guessed, 1, 3, now()).await, Err(EnrolRefusal::TooManyTries));
        let replica = code(Some(agent.environment)).await.unwrap();
        let second = enrol(replica, 1, 4, now()).await.unwrap();
        assert_eq!((second.environment, second.z_id), (agent.environment, agent.z_id));
        assert_ne!(second.agent, agent.agent);
        store.bar_agent(frontdoor, agent.agent, &context()).await.unwrap();
        assert_eq!(enrol(first, 1, 1, now()).await, Err(EnrolRefusal::Barred));
        assert_eq!(store.agent_with_key(agent.agent, &[1; 32]).await.unwrap(), None);
        // The agent's key is kept as long as the agent, however old the code is.
        store.prune(after(365 * 24 * 3600)).await.unwrap();
        let whose = store.agent_with_key(second.agent, &[4; 32]).await.unwrap();
        assert_eq!(whose, Some((frontdoor, agent.environment)));
        assert_eq!(store.agent_with_key(second.agent, &[1; 32]).await.unwrap(), None);
        assert!(!store.environment(frontdoor, agent.environment).await.unwrap().unwrap().active);
    });
}

#[test]
fn a_deleted_frontdoor_gets_no_agents_and_no_codes() {
    on_each(|store| async move {
        let frontdoor = frontdoor(&store).await;
        let id = EnrollmentId::new(Uuid::now_v7());
        let new =
            |id| NewEnrollment { id, environment: None, secret_sha256: [1; 32], expires_at: after(3600) };
        store.create_enrollment(frontdoor, &new(id), &context()).await.unwrap();
        store.delete_frontdoor(frontdoor, &context()).await.unwrap();
        let enrolled = store.enrol(&asked(id, 1, 1), &context()).await;
        assert!(matches!(enrolled, Err(StoreError::NoFrontdoor(f)) if f == frontdoor), "{enrolled:?}");
        let code =
            store.create_enrollment(frontdoor, &new(EnrollmentId::new(Uuid::now_v7())), &context()).await;
        assert!(matches!(code, Err(StoreError::NoFrontdoor(_))));
    });
}
