//! Query plans: SQLite uses an index for every list.

use super::*;
use crate::{
    Column, ColumnType, agent, api_account, column, connection_change, enrollment_code, environment,
    execution_row, frontdoor, handover_link, share, tunnel,
};
use jiff::Timestamp;

/// The steps of a statement, without those that sort what a subquery finds for one row: a tunnel has few endpoints.
async fn plan(store: &Store, sql: Sql) -> Vec<String> {
    let rows =
        sql.explained().fetch_all(&mut *store.database.readers.acquire().await.unwrap()).await.unwrap();
    let step = |row: &AnyRow| row.try_get::<String, _>("detail").unwrap();
    let number = |row: &AnyRow, column| row.try_get::<i64, _>(column).unwrap();
    let of_one_row = |row: &&AnyRow| {
        let parent = rows.iter().find(|other| number(other, "id") == number(row, "parent"));
        step(row).starts_with("USE TEMP B-TREE")
            && parent.is_some_and(|parent| step(parent).starts_with("CORRELATED SCALAR SUBQUERY"))
    };
    rows.iter().filter(|row| !of_one_row(row)).map(step).collect()
}

fn value(kind: ColumnType) -> FilterValue {
    match kind {
        ColumnType::Text => FilterValue::Text("x".to_owned()),
        ColumnType::Integer => FilterValue::Integer(1),
        ColumnType::Boolean => FilterValue::Boolean(true),
        ColumnType::Time => FilterValue::Times(Some(Timestamp::UNIX_EPOCH), None),
        ColumnType::Tags => FilterValue::Tag { name: "a".to_owned(), value: "b".to_owned() },
        ColumnType::List => FilterValue::Item("a".to_owned()),
    }
}

async fn empty() -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::store::fresh(dir.path()).await;
    (store, dir)
}

#[tokio::test]
async fn no_list_of_a_frontdoor_scans_a_table() {
    let (store, _dir) = empty().await;
    for (listing, owner, columns) in [
        (&frontdoor::LISTING, &column::frontdoor::ORGANIZATION, column::frontdoor::ALL),
        (&api_account::LISTING, &column::api_account::ORGANIZATION, column::api_account::ALL),
        (&handover_link::LISTING, &column::handover_link::TUNNEL, column::handover_link::ALL),
        (&enrollment_code::LISTING, &column::enrollment_code::FRONTDOOR, column::enrollment_code::ALL),
        (&environment::LISTING, &column::environment::FRONTDOOR, column::environment::ALL),
        (&agent::LISTING, &column::agent::FRONTDOOR, column::agent::ALL),
        (&tunnel::LISTING, &column::tunnel::FRONTDOOR, column::tunnel::ALL),
        (&tunnel::LISTING, &column::tunnel::FRONTDOOR, column::connection::ALL),
        (&share::LISTING, &column::share::FRONTDOOR, column::share::ALL),
        (&connection_change::LISTING, &connection_change::TUNNEL, column::connection_change::ALL),
        (&execution_row::LISTING, &column::execution::FRONTDOOR, column::execution::ALL),
        (&execution_row::ORGANIZATION_LISTING, &column::execution::ORGANIZATION, column::execution::ALL),
    ] {
        let scope = (owner, vec!["x".to_owned()]);
        for &column in columns {
            let filtered = ListRequest {
                filters: vec![Filter { column, values: vec![value(column.kind)] }],
                ..ListRequest::default()
            };
            let sorted =
                ListRequest { sort: vec![Sort { column, descending: true }], ..ListRequest::default() };
            for request in [filtered, sorted] {
                for sql in [
                    Sql::page(listing, Some(&scope), &request, Offset::Start(0)),
                    Sql::page(listing, Some(&scope), &request, Offset::End(100)),
                    Sql::count(listing, Some(&scope), &request),
                ] {
                    let plan = plan(&store, sql).await;
                    assert!(plan.iter().all(|step| !step.starts_with("SCAN")), "{column}: {plan:?}");
                }
            }
        }
    }
}

/// Those that a caller can make expensive: each filter with each other one, and with each sort.
#[tokio::test]
async fn no_filters_and_sort_together_scan_a_table_or_a_tenants_tags() {
    let (store, _dir) = empty().await;
    let filter =
        |column: &'static Column| Filter { column, values: vec![value(column.kind), value(column.kind)] };
    for (listing, owner, columns) in [
        (&share::LISTING, &column::share::FRONTDOOR, column::share::ALL),
        (&tunnel::LISTING, &column::tunnel::FRONTDOOR, column::tunnel::ALL),
        (&execution_row::LISTING, &column::execution::FRONTDOOR, column::execution::ALL),
    ] {
        let scope = (owner, vec!["x".to_owned()]);
        for (&one, &other) in columns.iter().flat_map(|one| columns.iter().map(move |other| (one, other))) {
            let sorted = ListRequest {
                filters: vec![filter(one)],
                sort: vec![Sort { column: other, descending: true }],
                ..ListRequest::default()
            };
            let filtered =
                ListRequest { filters: vec![filter(one), filter(other)], ..ListRequest::default() };
            for request in [sorted, filtered] {
                for sql in [
                    Sql::page(listing, Some(&scope), &request, Offset::Start(0)),
                    Sql::count(listing, Some(&scope), &request),
                ] {
                    let plan = plan(&store, sql).await;
                    assert!(plan.iter().all(|step| !step.starts_with("SCAN")), "{one} {other}: {plan:?}");
                    let of_tags = plan.iter().filter(|step| step.starts_with("SEARCH g "));
                    for step in of_tags {
                        let index = "_tag_value (frontdoor=? AND name=? AND value=?)";
                        assert!(step.ends_with(index), "{one} {other}: {plan:?}");
                    }
                }
            }
        }
    }
}

/// The rows that were changed last are a page of an index, in which only those of the same time are put in order.
#[tokio::test]
async fn the_newest_changes_are_not_sorted() {
    let (store, _dir) = empty().await;
    let scope = (&column::share::FRONTDOOR, vec!["x".to_owned()]);
    for descending in [true, false] {
        let sort = vec![Sort { column: &column::share::UPDATED_AT, descending }];
        let request = ListRequest { sort, ..ListRequest::default() };
        let plan = plan(&store, Sql::page(&share::LISTING, Some(&scope), &request, Offset::Start(0))).await;
        assert!(plan.iter().any(|step| step.contains("ipsec_share_updated")), "{plan:?}");
        // The last step puts the rows of the page in order again, after the joins.
        let found = plan.split_last().map_or(&plan[..], |(_, found)| found);
        assert!(!found.iter().any(|step| step == "USE TEMP B-TREE FOR ORDER BY"), "{plan:?}");
    }
}

#[tokio::test]
async fn frequent_requests_need_no_sorting() {
    let (store, _dir) = empty().await;
    type Filters = Vec<(&'static Column, FilterValue)>;
    let request = |filters: &Filters, sort: Option<&'static Column>| ListRequest {
        filters: filters
            .iter()
            .map(|(column, value)| Filter { column, values: vec![value.clone()] })
            .collect(),
        sort: sort.map(|column| Sort { column, descending: false }).into_iter().collect(),
        ..ListRequest::default()
    };
    let text = |text: &str| FilterValue::Text(text.to_owned());
    let since = FilterValue::Times(Some(Timestamp::UNIX_EPOCH), None);
    for (listing, owner, filters, sort, index) in [
        (&share::LISTING, &column::share::FRONTDOOR, vec![], None, "ipsec_share_live"),
        (&share::LISTING, &column::share::FRONTDOOR, vec![], Some(&column::share::NAME), "ipsec_share_name"),
        (
            &share::LISTING,
            &column::share::FRONTDOOR,
            vec![],
            Some(&column::share::CREATED_AT),
            "ipsec_share_created",
        ),
        (
            &share::LISTING,
            &column::share::FRONTDOOR,
            vec![(&column::share::STATUS, text("ERROR"))],
            None,
            "ipsec_share_status",
        ),
        (
            &share::LISTING,
            &column::share::FRONTDOOR,
            vec![(&column::share::STATUS, text("DELETED"))],
            None,
            "ipsec_share_status",
        ),
        (
            &share::LISTING,
            &column::share::FRONTDOOR,
            vec![(&column::share::TUNNEL, text("tnl-1"))],
            None,
            "ipsec_share_of_tunnel",
        ),
        (&tunnel::LISTING, &column::tunnel::FRONTDOOR, vec![], None, "ipsec_tunnel_frontdoor"),
        (
            &tunnel::LISTING,
            &column::tunnel::FRONTDOOR,
            vec![],
            Some(&column::tunnel::NAME),
            "ipsec_tunnel_name",
        ),
        (&environment::LISTING, &column::environment::FRONTDOOR, vec![], None, "environment_frontdoor"),
        (&agent::LISTING, &column::agent::FRONTDOOR, vec![], None, "agent_frontdoor"),
        (&execution_row::LISTING, &column::execution::FRONTDOOR, vec![], None, "execution_frontdoor"),
        (
            &execution_row::LISTING,
            &column::execution::FRONTDOOR,
            vec![(&column::execution::PROCESS, text("exe-1"))],
            None,
            "execution_process",
        ),
        (
            &execution_row::LISTING,
            &column::execution::FRONTDOOR,
            vec![(&column::execution::RESOURCE, text("shr-1"))],
            None,
            "execution_resource",
        ),
        (
            &execution_row::LISTING,
            &column::execution::FRONTDOOR,
            vec![(&column::execution::SOURCE_ADDRESS, text("192.0.2.1"))],
            None,
            "execution_source",
        ),
        (
            &execution_row::LISTING,
            &column::execution::FRONTDOOR,
            vec![(&column::execution::REQUEST_ID, text("r-1"))],
            None,
            "execution_request",
        ),
        (
            &execution_row::LISTING,
            &column::execution::FRONTDOOR,
            vec![(&column::execution::STATUS, text("FAILED"))],
            None,
            "execution_status",
        ),
        (
            &execution_row::LISTING,
            &column::execution::FRONTDOOR,
            vec![(&column::execution::CREATED_AT, since)],
            Some(&column::execution::CREATED_AT),
            "execution_created",
        ),
        (&frontdoor::LISTING, &column::frontdoor::ORGANIZATION, vec![], None, "frontdoor_organization"),
    ] {
        let scope = (owner, vec!["x".to_owned()]);
        for offset in [Offset::Start(0), Offset::End(100)] {
            let sql = Sql::page(listing, Some(&scope), &request(&filters, sort), offset);
            let plan = plan(&store, sql).await;
            assert!(plan.iter().any(|step| step.contains(index)), "{index}: {plan:?}");
            // Some lists find a page in the table alone, and sort its few rows again after the joins.
            let found =
                plan.split_last().filter(|_| listing.table.is_some()).map_or(&plan[..], |(_, found)| found);
            assert!(!found.iter().any(|step| step.starts_with("USE TEMP B-TREE")), "{index}: {plan:?}");
        }
    }
}
