//! What a TLS handshake shows, before the gateway has said anything.

use super::report::{CheckStep, NOT_REACHED, Report, fail, pass, skip};
use crate::route::{NoHandshake, Route};
use wicketgate_transport::tls::Diagnosis;

/// `None`: there was no connection.
pub(super) fn tls<T>(route: &Route, shaken: Option<&Result<T, NoHandshake>>, report: &mut Report) {
    let result = match shaken {
        Some(Ok(_)) => pass("the gateway's certificate is of the expected authority"),
        Some(Err(failed)) => fail(format!("{:#}", failed.error)),
        None => skip(NOT_REACHED),
    };
    report.add(CheckStep::Tls, &route.server, result);
}

/// For a handshake that is not followed by the gateway's time.
pub(super) fn clock_by_certificate<T>(
    route: &Route,
    shaken: Option<&Result<T, NoHandshake>>,
    report: &mut Report,
) {
    let result = match shaken {
        Some(Err(failed)) if matches!(failed.diagnosis, Some(Diagnosis::Clock { .. })) => {
            fail(format!("{:#}", failed.error))
        }
        Some(Ok(_)) => pass("the gateway's certificate is valid by the clock of this host"),
        _ => skip(NOT_REACHED),
    };
    report.add(CheckStep::Clock, &route.server, result);
}
