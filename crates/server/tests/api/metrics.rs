use crate::harness::{TestApp, at, spooled};
use axum::http::StatusCode;
use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde_json::json;
use wicketgate_model::{FailureReason, TrafficDelta};
use wicketgate_store::TrafficReport;

#[tokio::test]
async fn samples_add_up_and_include_zeros() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let (share_id, tunnel_id) = (share["id"].as_str().unwrap(), tunnel["id"].as_str().unwrap());
    let delta = TrafficDelta {
        rx: 8331,
        tx: 1321,
        connections: 2,
        failures: [(FailureReason::NoAgent, 1)].into(),
        active: 2,
        ..TrafficDelta::new(share_id.parse().unwrap(), tunnel_id.parse().unwrap())
    };
    let report = TrafficReport::new(&spooled(vec![delta]), Timestamp::now());
    app.store.record_traffic(&app.epoch, &report).await.unwrap();
    for path in [at("ipsec-shares", &share), at("ipsec-tunnels", &tunnel)] {
        let answer = app.get(&format!("{path}/metrics?duration=1h")).await.body;
        assert_eq!(
            (&answer["period"], &answer["id"]),
            (&3600.into(), &path.split('/').next_back().unwrap().into())
        );
        let samples = answer["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 120);
        let sum = |name: &str| samples.iter().map(|s| s[name].as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum("rx"), sum("tx"), sum("connections"), sum("failures")), (8331, 1321, 2, 1));
        let by_reason: Vec<_> = samples.iter().map(|s| &s["failuresByReason"]).collect();
        assert_eq!(by_reason.iter().filter(|reasons| ***reasons == json!({"no-agent": 1})).count(), 1);
        assert_eq!(by_reason.iter().filter(|reasons| ***reasons == json!({})).count(), 119);
        for sample in samples {
            let at: Timestamp = sample["at"].as_str().unwrap().parse().unwrap();
            assert_eq!(sample["timestamp"], at.as_millisecond());
        }
        let starts: Vec<_> = samples.iter().map(|s| s["timestamp"].as_i64().unwrap()).collect();
        assert!(starts.windows(2).all(|w| w[1] - w[0] == 30_000));
    }
    let path = format!("{}/metrics", at("ipsec-shares", &share));
    assert_eq!(app.get(&path).await.body["period"], 86_400);
    let few = app.get(&format!("{path}?duration=PT1M&step=30s")).await;
    assert_json_snapshot!("few", app.shown(&few), {".body.samples[].rx" => "[n]", ".body.samples[].tx" => "[n]",
        ".body.samples[].connections" => "[n]", ".body.samples[].failures" => "[n]", ".body.samples[].failuresByReason" => "[reasons]", ".body.samples[].active" => "[n]"});
    for bad in [
        "duration=",
        "duration=1",
        "duration=31d",
        "duration=1s",
        "duration=1h&step=7s",
        "dur=1h",
        "duration=1h&duration=1h",
    ] {
        let answer = app.get(&format!("{path}?{bad}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
        assert_eq!(answer.body["error"], "invalid_request");
    }
}

#[tokio::test]
async fn a_share_without_traffic_has_zeros() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    for path in [at("ipsec-shares", &share), at("ipsec-tunnels", &tunnel)] {
        for (duration, period) in
            [("15m", 900), ("1h30m", 5400), ("PT1H", 3600), ("7d", 604_800), ("30d", 2_592_000)]
        {
            let answer = app.get(&format!("{path}/metrics?duration={duration}")).await.body;
            let samples = answer["samples"].as_array().unwrap();
            assert_eq!(answer["period"], period, "{duration}");
            assert!((30..=120).contains(&samples.len()), "{duration}: {} samples", samples.len());
            for name in ["rx", "tx", "connections", "failures", "active"] {
                assert!(samples.iter().all(|s| s[name] == 0), "{duration}: {name}");
            }
        }
    }
}
