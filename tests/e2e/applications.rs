//! Real applications through one tunnel, each behind a share of its own: what they transfer arrives unchanged, and the
//! share's metrics count every byte once.

mod databases;
mod mariadb;
mod scene;
mod streams;
mod tap;

use anyhow::{Context as _, Result};

use scene::{Published, Scene};

/// Starts an application's server, publishes it, and transfers something.
type Transfer = fn(&Scene) -> Result<Published>;

#[test]
fn what_applications_transfer_arrives_unchanged_and_metrics_count_every_byte() -> Result<()> {
    let scene = Scene::start()?;
    let applications: [(_, Transfer); 6] = [
        ("PostgreSQL", databases::postgresql),
        ("Redis", databases::redis),
        ("scp", streams::scp),
        ("HTTP/2", streams::http2),
        ("a WebSocket", streams::websocket),
        ("gRPC", streams::grpc),
    ];
    for (name, transfer) in applications {
        transfer(&scene).and_then(|published| published.verify(&scene)).context(name)?;
    }
    scene.end()
}
