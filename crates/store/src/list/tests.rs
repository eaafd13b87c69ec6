//! How SQLite answers lists: by an index, whatever is asked for.

use super::*;

async fn plan(store: &Store, sql: Sql) -> Vec<String> {
    let rows = sql.explained().fetch_all(&store.readers).await.unwrap();
    rows.iter().map(|row| row.try_get::<String, _>("detail").unwrap()).collect()
}

fn wanted(kind: PropertyType) -> Wanted {
    match kind {
        PropertyType::Text | PropertyType::Id(_) | PropertyType::Enum(_) => Wanted::Text("x".to_owned()),
        PropertyType::Integer => Wanted::Integer(1),
        PropertyType::Boolean => Wanted::Boolean(true),
        PropertyType::Timestamp => Wanted::Times(Some(Timestamp::UNIX_EPOCH), None),
        PropertyType::Tags => Wanted::Tag { name: "a".to_owned(), value: "b".to_owned() },
        PropertyType::List => Wanted::Item("a".to_owned()),
    }
}

async fn empty() -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("wicketgate.db").to_str().unwrap()).await.unwrap();
    (store, dir)
}

#[tokio::test]
async fn no_list_of_a_frontdoor_scans_a_table() {
    let (store, _dir) = empty().await;
    for (listing, owner) in [
        (&FRONTDOORS, "f.organization"),
        (&API_ACCOUNTS, "c.organization"),
        (&ENVIRONMENTS, "e.frontdoor"),
        (&AGENTS, "a.frontdoor"),
        (&TUNNELS, "t.frontdoor"),
        (&SHARES, "s.frontdoor"),
        (&CONNECTION_CHANGES, "h.tunnel"),
        (&EXECUTIONS, "x.frontdoor"),
        (&ORGANIZATION_EXECUTIONS, "x.organization"),
    ] {
        let scope = (owner, vec!["x".to_owned()]);
        for property in listing.properties {
            let filtered = ListRequest {
                filters: vec![Filter { property, values: vec![wanted(property.kind)] }],
                ..ListRequest::default()
            };
            let sorted =
                ListRequest { sort: vec![Sort { property, descending: true }], ..ListRequest::default() };
            for request in [filtered, sorted] {
                for sql in [
                    Sql::page(listing, Some(&scope), &request, Offset::Start(0)),
                    Sql::page(listing, Some(&scope), &request, Offset::End(100)),
                    Sql::count(listing, Some(&scope), &request),
                ] {
                    let plan = plan(&store, sql).await;
                    assert!(plan.iter().all(|step| !step.starts_with("SCAN")), "{}: {plan:?}", property.name);
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_asked_for_most_needs_no_sorting() {
    let (store, _dir) = empty().await;
    let request = |filters: &[(&str, Wanted)], sort: &str, listing: &Listing| ListRequest {
        filters: filters
            .iter()
            .map(|(name, value)| Filter {
                property: listing.property(name).unwrap(),
                values: vec![value.clone()],
            })
            .collect(),
        sort: listing
            .property(sort)
            .map(|property| Sort { property, descending: false })
            .into_iter()
            .collect(),
        ..ListRequest::default()
    };
    let text = |text: &str| Wanted::Text(text.to_owned());
    let since = Wanted::Times(Some(Timestamp::UNIX_EPOCH), None);
    for (listing, owner, filters, sort, index) in [
        (&SHARES, "s.frontdoor", vec![], "", "ipsec_share_live"),
        (&SHARES, "s.frontdoor", vec![], "name", "ipsec_share_name"),
        (&SHARES, "s.frontdoor", vec![], "createdAt", "ipsec_share_created"),
        (&SHARES, "s.frontdoor", vec![("status", text("ERROR"))], "", "ipsec_share_status"),
        (&SHARES, "s.frontdoor", vec![("status", text("DELETED"))], "", "ipsec_share_status"),
        (&TUNNELS, "t.frontdoor", vec![], "", "ipsec_tunnel_frontdoor"),
        (&TUNNELS, "t.frontdoor", vec![], "name", "ipsec_tunnel_name"),
        (&ENVIRONMENTS, "e.frontdoor", vec![], "", "environment_frontdoor"),
        (&AGENTS, "a.frontdoor", vec![], "", "agent_frontdoor"),
        (&EXECUTIONS, "x.frontdoor", vec![], "", "execution_frontdoor"),
        (&EXECUTIONS, "x.frontdoor", vec![("processId", text("exe-1"))], "", "execution_process"),
        (&EXECUTIONS, "x.frontdoor", vec![("resourceId", text("shr-1"))], "", "execution_resource"),
        (&EXECUTIONS, "x.frontdoor", vec![("status", text("FAILED"))], "", "execution_status"),
        (&EXECUTIONS, "x.frontdoor", vec![("createdAt", since)], "createdAt", "execution_created"),
        (&FRONTDOORS, "f.organization", vec![], "", "frontdoor_organization"),
    ] {
        let scope = (owner, vec!["x".to_owned()]);
        for offset in [Offset::Start(0), Offset::End(100)] {
            let sql = Sql::page(listing, Some(&scope), &request(&filters, sort, listing), offset);
            let plan = plan(&store, sql).await;
            assert!(plan.iter().any(|step| step.contains(index)), "{index}: {plan:?}");
            // A page that was found in the table alone is put into order once more, after the joins: its rows only.
            let found =
                plan.split_last().filter(|_| listing.table.is_some()).map_or(&plan[..], |(_, found)| found);
            assert!(!found.iter().any(|step| step.starts_with("USE TEMP B-TREE")), "{index}: {plan:?}");
        }
    }
}
