use crate::harness::{TestApp, at, error, share, with};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde_json::json;
use wicketgate_model::{
    Algorithms, Connection, ConnectionError, ConnectionFault, ConnectionState, Nat, Peer, SaTimes, Status,
};

#[tokio::test]
async fn pages_are_consecutive() {
    let (app, tunnel, site) = TestApp::with_site().await;
    for n in 1..=5 {
        app.share(&tunnel, &site.z_id, &format!("share-{n}"), n).await;
    }
    let mut names = Vec::new();
    for page in 0..4 {
        let answer = app.get(&format!("ipsec-shares?page={page}&size=2")).await.body;
        assert_eq!((&answer["totalElements"], &answer["totalPages"]), (&json!(5), &json!(3)));
        names.extend(
            answer["content"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(names, ["share-1", "share-2", "share-3", "share-4", "share-5"]);
    assert_json_snapshot!("hal", app.shown(&app.get_hal("ipsec-shares?page=1&size=2").await));
    assert_json_snapshot!("hal_past_the_end", app.shown(&app.get_hal("ipsec-shares?page=7&size=2").await));
    let far = app.get("ipsec-shares?page=9223372036854775807&size=1000").await;
    assert_eq!((far.status, &far.body["content"]), (StatusCode::OK, &json!([])));
}

#[tokio::test]
async fn an_invalid_parameter_is_named() {
    let app = TestApp::new().await;
    for (query, message) in [
        ("page=-1", "page must be 0 or more"),
        ("page=x", "Value for page must be of type integer"),
        ("page=99999999999999999999", "page must be 0 or more"),
        ("size=0", "size must be between 1 and 1000"),
        ("size=1001", "size must be between 1 and 1000"),
        ("size=", "Value for size must be of type integer"),
        ("size=1&size=2", "size must be given once"),
        ("pgae=1", "pgae is not a known parameter"),
    ] {
        for list in [
            "ipsec-shares",
            "ipsec-tunnels",
            "environments",
            "agents",
            "executions",
            "locations",
            "/frontdoor/v2",
            "/frontdoor/v2/api-accounts",
            "/frontdoor/v2/executions",
        ] {
            let answer = app.get(&format!("{list}?{query}")).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            assert_eq!(answer.body, error("invalid_request", message), "{list}?{query}");
        }
    }
}

#[tokio::test]
async fn a_filter_has_the_type_of_its_property() {
    let (app, tunnel, site) = TestApp::with_site().await;
    for (list, query) in [
        ("ipsec-tunnels", "peerCidr=banana"),
        ("ipsec-tunnels", "peerPublicIp=banana"),
        ("ipsec-tunnels", "loadBalancerIp=100.64.0"),
        ("ipsec-tunnels", "gatewayPublicIp=banana"),
        ("ipsec-tunnels", "connection.peer.address=banana"),
        ("ipsec-shares", "allowedSources=banana"),
        ("agents", "address=banana"),
        ("/frontdoor/v2/api-accounts", "scopes=frontdoor.writ"),
        ("/frontdoor/v2/api-accounts", "frontdoorIds=banana"),
    ] {
        let refused = app.get(&format!("{list}?{query}")).await;
        let name = query.split('=').next().unwrap();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{list}?{query}");
        let message = refused.body["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("Value for {name} must be of type")), "{message}");
    }
    let allowed = json!({"allowedSources": ["172.31.0.9"]});
    app.post("ipsec-shares", with(share(&tunnel, &site.z_id, "app-db", 8443), allowed)).await;
    let patch = json!({"espProposals": ["aes256gcm16-ecp384"]});
    app.patch(&at("ipsec-tunnels", &tunnel), patch).await;
    for (list, total) in [
        ("ipsec-tunnels?peerCidr=172.31.0.0/16", 1),
        ("ipsec-tunnels?peerPublicIp=203.0.113.1", 1),
        ("ipsec-tunnels?espProposals=aes256gcm16-ecp384", 1),
        ("ipsec-tunnels?espProposals=aes256gcm16-ecp38", 0),
        ("ipsec-shares?allowedSources=172.31.0.9", 1),
        ("ipsec-shares?allowedSources=172.31.0.9/32", 1),
        ("ipsec-shares?allowedSources=172.31.0.0/16", 0),
    ] {
        assert_eq!(app.get(list).await.body["totalElements"], total, "{list}");
    }
}

#[tokio::test]
async fn the_answer_has_the_format_of_the_accept_header() {
    let app = TestApp::new().await;
    let get = async |accept: &str| {
        let request = Request::get(app.path("ipsec-shares"))
            .header("authorization", format!("Bearer {}", crate::harness::TOKEN))
            .header("accept", accept);
        app.send(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(get("application/json").await.headers["content-type"], "application/json");
    let hal = get("application/hal+json").await;
    assert_eq!(hal.headers["content-type"], "application/hal+json");
    assert!(hal.body.get("_embedded").is_none());
    assert_json_snapshot!("not_acceptable", app.shown(&get("text/html").await));
}

async fn names(app: &TestApp, query: &str) -> Vec<String> {
    let answer = app.get(&format!("ipsec-shares?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.text);
    let content = answer.body["content"].as_array().unwrap();
    assert_eq!(answer.body["totalElements"], content.len(), "{query}");
    content.iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_list_is_filtered_and_sorted_by_any_property() {
    let (app, tunnel, site) = TestApp::with_site().await;
    for (name, port, team) in [("delta", 4, "pay ments"), ("alpha", 1, "web"), ("charlie", 3, "web")] {
        let body = with(share(&tunnel, &site.z_id, name, port), json!({"tags": {"team": team, "n": name}}));
        assert_eq!(app.post("ipsec-shares", body).await.status, StatusCode::ACCEPTED);
    }
    let gone = app.share(&tunnel, &site.z_id, "gone", 9).await;
    app.settle(&gone, Status::Deleted).await;
    let tunnel = tunnel["id"].as_str().unwrap();
    let first = &app.get("ipsec-shares").await.body["content"][0];
    let created = first["createdAt"].as_str().unwrap();
    let all = ["delta", "alpha", "charlie"];
    for (query, wanted) in [
        ("".to_owned(), &all[..]),
        ("sort=name".to_owned(), &["alpha", "charlie", "delta"]),
        ("sort=name,desc".to_owned(), &["delta", "charlie", "alpha"]),
        ("sort=status,desc&sort=ingressPort,asc".to_owned(), &["alpha", "charlie", "delta"]),
        ("sort=status,desc".to_owned(), &all),
        ("sort=tags&sort=statusDetail.reason".to_owned(), &["alpha", "charlie", "delta"]),
        ("name=alpha&name=delta".to_owned(), &["delta", "alpha"]),
        ("name=alpha&name=delta&ingressPort=4".to_owned(), &["delta"]),
        ("status=DEPLOYED".to_owned(), &[]),
        ("status=DELETED".to_owned(), &["gone"]),
        ("status=DELETED&status=NEW&sort=name,desc".to_owned(), &["gone", "delta", "charlie", "alpha"]),
        ("deletedAt=2026-01-01T00:00:00Z..".to_owned(), &["gone"]),
        ("tag.team=web".to_owned(), &["alpha", "charlie"]),
        ("tag.team=web&tag.n=alpha".to_owned(), &["alpha"]),
        ("tag.team=pay+ments&tag.team=web".to_owned(), &all),
        ("tag.team=WEB".to_owned(), &[]),
        (format!("ipsecTunnelId={tunnel}&envZId={}", site.z_id), &all),
        (format!("id={}", first["id"].as_str().unwrap()), &["delta"]),
        (format!("createdAt={created}"), &["delta"]),
        (format!("createdAt=..{created}"), &["delta"]),
        ("createdAt=2020-01-01T00:00:00Z..2020-12-31T23:59:59Z".to_owned(), &[]),
        ("target=10.20.100.1:8443&locationId=local&createdBy=admin".to_owned(), &all),
        ("ingressPort=99999999999999999999999".to_owned(), &[]),
    ] {
        assert_eq!(names(&app, &query).await, wanted, "{query}");
    }
    let query = "ipsec-shares?tag.team=pay+ments&tag.team=web&name=alpha&name=delta&sort=name,desc&size=1";
    assert_json_snapshot!("hal_filtered", app.shown(&app.get_hal(query).await));
}

#[tokio::test]
async fn every_list_accepts_filters_on_its_properties() {
    let (app, tunnel, site) = TestApp::with_site().await;
    for (list, total) in [
        ("ipsec-tunnels?connection.state=DOWN&peerCidr=172.31.0.0/16&sort=connection.since,desc", 1),
        ("ipsec-tunnels?connection.state=UP", 0),
        ("ipsec-tunnels?gatewayPublicIp=198.51.100.7&gatewayPublicIp=198.51.100.8&locationId=local", 1),
        ("ipsec-tunnels?gatewayPublicIp=198.51.100.8&sort=gatewayPublicIp,desc", 0),
        ("ipsec-tunnels?connection.bytesIn=0&connection.bytesOut=0&sort=connection.bytesIn,desc", 1),
        ("ipsec-tunnels?connection.lastError.reason=PreSharedKeysDiffer&sort=connection.lastError.since", 0),
        ("ipsec-tunnels?connection.algorithms.ike=x&connection.algorithms.esp=y", 0),
        ("ipsec-tunnels?statusDetail.message=the+gateway+has+not+reported+this+change+yet", 1),
        ("ipsec-tunnels?statusDetail.reason=Pending&sort=statusDetail.message,desc", 1),
        ("agents?sort=lastSeen,desc&lastSeen=2020-01-01T00:00:00Z..", 0),
        ("/frontdoor/v2/api-accounts?scopes=frontdoor.read&sort=scopes,desc&sort=frontdoorIds", 0),
        ("environments?status=OFFLINE&name=dc-1", 1),
        ("environments?status=ACTIVE", 0),
        ("agents?status=OFFLINE&sort=connectedSince", 1),
        ("agents?version=1", 0),
        ("executions?resourceType=ipsec-tunnel&action=CREATE&status=RUNNING", 1),
        ("executions?status=FAILED", 0),
        ("locations?id=local&id=mars&sort=id,desc", 1),
        ("locations?id=mars", 0),
        ("/frontdoor/v2?ipsecSharesEnabled=true&organizationId=default", 1),
        ("/frontdoor/v2?ipsecSharesEnabled=false", 0),
    ] {
        let answer = app.get(list).await;
        assert_eq!((answer.status, &answer.body["totalElements"]), (StatusCode::OK, &json!(total)), "{list}");
    }
    let id = tunnel["id"].as_str().unwrap().parse().unwrap();
    let later: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let up = Connection {
        state: ConnectionState::Up,
        algorithms: Some(Algorithms { ike: "AES/ECP 384".to_owned(), esp: "AES".to_owned() }),
        peer: Some(Peer {
            address: [203, 0, 113, 1].into(),
            port: 4500,
            id: Some("site.example".to_owned()),
        }),
        nat: Some(Nat { gateway: true, peer: false }),
        ike_sa: Some(SaTimes { established_at: later, rekey_at: Some(later) }),
        child_sa: Some(SaTimes { established_at: later, rekey_at: None }),
        bytes_in: 7,
        bytes_out: 8,
        last_error: Some(ConnectionError {
            reason: ConnectionFault::TrafficSelectorsDiffer,
            cause: "outside".to_owned(),
            cure: "widen it".to_owned(),
            since: Timestamp::now(),
        }),
        ..Connection::down(Timestamp::now())
    };
    app.record_connection(id, &up).await;
    let one = app
        .account(json!({"frontdoorIds": [app.frontdoor], "scopes": ["frontdoor.read", "frontdoor.write"]}))
        .await;
    app.account(json!({"organizationId": "default", "scopes": ["frontdoor.admin"]})).await;
    for (list, total) in [
        ("ipsec-tunnels?connection.algorithms.ike=AES/ECP+384&connection.algorithms.esp=AES".to_owned(), 1),
        (
            "ipsec-tunnels?connection.bytesIn=7&connection.bytesOut=8&connection.lastError.reason=TrafficSelectorsDiffer&connection.lastError.message=outside:+widen+it"
                .to_owned(),
            1,
        ),
        ("ipsec-tunnels?connection.bytesIn=8".to_owned(), 0),
        (
            "ipsec-tunnels?connection.peer.address=203.0.113.1&connection.peer.port=4500&connection.peer.id=site.example&connection.nat.gateway=true&connection.nat.peer=false"
                .to_owned(),
            1,
        ),
        (
            "ipsec-tunnels?connection.ikeSa.establishedAt=2030-01-01T00:00:00Z&connection.ikeSa.rekeyAt=2029-12-31T00:00:00Z..&connection.childSa.establishedAt=2030-01-01T00:00:00Z&sort=connection.childSa.rekeyAt"
                .to_owned(),
            1,
        ),
        ("ipsec-tunnels?connection.childSa.rekeyAt=2029-12-31T00:00:00Z..".to_owned(), 0),
        ("ipsec-tunnels?connection.nat.peer=true".to_owned(), 0),
        ("/frontdoor/v2/api-accounts?scopes=frontdoor.write&scopes=frontdoor.admin".to_owned(), 2),
        (
            format!(
                "/frontdoor/v2/api-accounts?frontdoorIds={}&clientId={}",
                app.frontdoor,
                one["clientId"].as_str().unwrap()
            ),
            1,
        ),
    ] {
        let answer = app.get(&list).await;
        assert_eq!((answer.status, &answer.body["totalElements"]), (StatusCode::OK, &json!(total)), "{list}");
    }
    let resource = tunnel["id"].as_str().unwrap();
    assert_eq!(app.get(&format!("executions?resourceId={resource}")).await.body["totalElements"], 1);
    let agents = app.get(&format!("agents?environmentId={}&id={}", site.environment, site.agent)).await;
    assert_eq!(agents.body["totalElements"], 1);
}

#[tokio::test]
async fn all_faults_of_a_query_are_reported() {
    let app = TestApp::new().await;
    let query = "page=x&size=0&sort=colour&sort=name,up&ingressPort=many&status=ON&createdAt=today&id=7&colour=red\
                 &tags=x&tag.=x&name=%00";
    assert_json_snapshot!("faults", app.shown(&app.get(&format!("ipsec-shares?{query}")).await));
    for (query, message) in [
        ("sort=", "sort must name a property of the list"),
        ("sort=name,sideways", "sort must be name, name,asc or name,desc"),
        ("colour=red", "colour is not a known parameter"),
        ("Status=NEW", "Status is not a known parameter"),
        ("ingressPort=1.5", "Value for ingressPort must be of type integer"),
        (
            "deletedAt=..",
            "Value for deletedAt must be of type timestamp: RFC 3339, or a range from..to of two",
        ),
    ] {
        let answer = app.get(&format!("ipsec-shares?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.body, error("invalid_request", message), "{query}");
    }
    let many = "name=&".repeat(10_000);
    for list in ["ipsec-shares", "executions", "/frontdoor/v2"] {
        assert_eq!(app.get(&format!("{list}?{many}")).await.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn the_preferred_format_is_chosen() {
    let app = TestApp::new().await;
    for (accept, format) in [
        ("application/json;q=0.1, application/hal+json;q=0.9", "application/hal+json"),
        ("application/hal+json;q=0.1, application/json;q=0.9", "application/json"),
        ("application/hal+json, */*;q=0.8", "application/hal+json"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("APPLICATION/HAL+JSON", "application/hal+json"),
        ("application/json;q=0, application/*", "application/hal+json"),
        ("", "application/json"),
    ] {
        let request = Request::get(app.path("ipsec-shares"))
            .header("authorization", format!("Bearer {}", crate::harness::TOKEN))
            .header("accept", accept);
        let answer = app.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.headers["content-type"], format, "{accept}");
    }
}
