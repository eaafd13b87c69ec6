//! The admin token, and what the operator does beside the servers.

use crate::{
    database::on_each,
    site::{ALL, context},
};
use tempfile::TempDir;
use wicketgate_store::{
    Action, ExecutionRow, LOCAL_OPERATOR, SecretKeyFile, Store, WriteContext, record_of_operator,
    replace_admin_token,
};

async fn replaced(store: &Store) -> Vec<ExecutionRow> {
    let rows = store.organization_executions(None, &ALL).await.unwrap().rows;
    rows.into_iter().filter(|row| row.action == Action::ReplaceAdminToken).collect()
}

#[test]
fn another_admin_token_is_recorded_and_the_first_and_the_same_are_not() {
    on_each(|store| async move {
        for (token, recorded) in [([1; 32], 0), ([1; 32], 0), ([2; 32], 1)] {
            store.set_admin_token(token, "the file has another one", &context()).await.unwrap();
            assert_eq!(store.admin_token().await.unwrap(), Some(token));
            assert_eq!(replaced(&store).await.len(), recorded);
        }
        let row = replaced(&store).await.remove(0);
        assert_eq!(row.message.as_deref(), Some("the file has another one"));
        assert_eq!((row.resource.as_str(), row.frontdoor), ("installation", None));
        // Of no organization: only the operator sees it.
        assert_eq!(row.organization, None);
        assert_eq!(store.organization_executions(Some("default"), &ALL).await.unwrap().total, 0);
    });
}

#[tokio::test]
async fn what_another_process_of_the_operator_does_is_recorded_while_a_server_runs() {
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("wicketgate.db").to_str().unwrap().to_owned();
    let keys = SecretKeyFile::created_at(dir.path().join("secret-key"));
    let store = Store::open(&place, &keys).await.unwrap();
    let by = WriteContext { actor: LOCAL_OPERATOR.to_owned(), ..context() };
    replace_admin_token(&place, [3; 32], &by).await.unwrap();
    assert_eq!(store.admin_token().await.unwrap(), Some([3; 32]));
    assert_eq!(replaced(&store).await[0].actor, LOCAL_OPERATOR);
    record_of_operator(&place, Action::Backup, "an export of all rows to /x", &by).await.unwrap();
    store.record_of_operator(Action::Restore, "from /x: era 2 begins", &by).await.unwrap();
    let rows = store.organization_executions(None, &ALL).await.unwrap().rows;
    let recorded: Vec<_> = rows.iter().map(|row| (row.action, row.actor.as_str())).collect();
    let expected = [Action::ReplaceAdminToken, Action::Backup, Action::Restore];
    assert_eq!(recorded, expected.map(|action| (action, LOCAL_OPERATOR)));
}
