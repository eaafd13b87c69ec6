//! What an agent would find: each step of its way to the gateway and to its targets, taken by the agent's own code.
//!
//! Invariant: a check changes nothing and disturbs no process: it neither locks nor writes the state directory, does not use up an
//! enrolment code, serves no share, and targets do not notice it. So it can run beside the agent.

mod gateway;
mod handshake;
pub(crate) mod report;
pub(crate) mod server_name;
mod targets;

pub use report::{CheckStep, Report, Verdict};

use crate::{
    Config, NoCode,
    names::Names,
    proxy::Proxy,
    route::{NoRoute, Route},
    state::{State, StateDir},
};
use gateway::Answer;
use handshake::{clock_by_certificate, tls};
use report::{NOT_REACHED, fail, pass, skip};
use std::sync::Arc;
use tokio::net::TcpStream;
use wicketgate_transport::{code::EnrolmentCode, tls::connect_enrol};

/// How the agent proves who it is.
enum Proof {
    Enrolled(Box<State>),
    Code(EnrolmentCode),
    Neither(anyhow::Error),
}

/// Checks the way to the gateway and to the targets. Takes a few seconds, or some more for each step that gets no answer.
pub async fn check(config: Config) -> Report {
    let Config { server, proxy, code, state_dir, allow, .. } = config;
    let proxy = proxy.of(&server);
    let route = Route { server, proxy, names: Arc::new(Names::default()) };
    let mut report = Report::default();
    let tcp = way(&route, &mut report).await;
    let answer = match proof(StateDir::read_only(&state_dir), code) {
        Proof::Enrolled(state) => {
            let answer = gateway::ask(&route, &state, tcp, &mut report).await;
            answer.map(|answer| (state, answer))
        }
        Proof::Code(code) => {
            trial(&route, &code, tcp, &mut report).await;
            None
        }
        Proof::Neither(error) => {
            report.add(CheckStep::Tls, &route.server, skip("the authority of the server is not known yet"));
            report.add(CheckStep::Identity, &state_dir.display(), fail(format!("{error:#}")));
            report.add(CheckStep::Clock, &route.server, skip(NOT_REACHED));
            None
        }
    };
    match answer {
        Some((state, Answer { gateway, assignments })) => {
            targets::check((&state, gateway, &assignments), allow, &route.names, &mut report).await;
        }
        None => {
            let why = "targets are known when the gateway has accepted the agent's identity";
            report.add(CheckStep::AllowList, "targets", skip(why));
            report.add(CheckStep::Target, "targets", skip(why));
        }
    }
    report
}

fn proof(dir: StateDir, code: Result<EnrolmentCode, NoCode>) -> Proof {
    match (dir.load(), code) {
        (Ok(Ok(state)), _) => Proof::Enrolled(Box::new(state)),
        (Ok(Err(_)), Ok(code)) => Proof::Code(code),
        (Ok(Err(_)), Err(none)) => Proof::Neither(none.into()),
        (Err(error), _) => Proof::Neither(error),
    }
}

/// Name, address, TCP and proxy.
async fn way(route: &Route, report: &mut Report) -> Option<TcpStream> {
    let server = route.server.endpoint();
    let dialled = route.proxy.as_ref().map_or(server, Proxy::endpoint);
    report.add(CheckStep::Name, dialled.host(), server_name::check(dialled, &route.names).await);
    let connected = route.connect().await;
    let why_straight = || route.proxy.as_ref().err().map(ToString::to_string);
    let (tcp, proxy) = match &connected {
        Ok(tcp) => {
            let peer = tcp.peer_addr().map_or_else(|_| "it".to_owned(), |peer| peer.to_string());
            let through = why_straight().map_or_else(|| pass(format!("connects to {server}")), skip);
            (pass(format!("connected to {peer}")), through)
        }
        Err(error @ NoRoute::Refused(_)) => (pass("connected"), fail(error.to_string())),
        Err(error) => {
            (fail(error.to_string()), skip(why_straight().unwrap_or_else(|| NOT_REACHED.to_owned())))
        }
    };
    report.add(CheckStep::Tcp, dialled, tcp);
    let shown = route.proxy.as_ref().map_or_else(|_| "proxy".to_owned(), ToString::to_string);
    report.add(CheckStep::Proxy, &shown, proxy);
    connected.ok()
}

/// TLS as at the first start, without the request that would use up the code.
async fn trial(route: &Route, code: &EnrolmentCode, tcp: Option<TcpStream>, report: &mut Report) {
    let shaken = match tcp {
        Some(tcp) => Some(route.handshake(connect_enrol(code.ca(), tcp)).await.map(drop)),
        None => None,
    };
    tls(route, shaken.as_ref(), report);
    let why = "not enrolled yet; the enrolment code is kept for the first start";
    report.add(CheckStep::Identity, &code.id(), skip(why));
    clock_by_certificate(route, shaken.as_ref(), report);
}
