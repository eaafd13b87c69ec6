//! The places of the Debian package, and how an agent is enrolled again, with the package and without it.

use std::path::Path;
use wicketgate_model::EnvironmentId;

/// The state directory of the package's service.
pub const STATE_DIR: &str = "/var/lib/wicketgate-agent";
/// Where the service takes the enrolment code from, by the name of its credential (systemd.exec(5), `LoadCredential=`).
pub const CODE_FILE: &str = "/etc/credstore/wicketgate-agent.enrollment-code";
/// Exists where systemd runs (sd_booted(3)): an image has the package's state directory and no service.
const SYSTEMD: &str = "/run/systemd/system";

/// How an agent of the package is enrolled for the first time.
pub(crate) const ENROL: &str = "make a code with `wicketgate agent enroll --jq .enrollmentCode` on the server, then run `wicketgate-agent enroll` and \
     `systemctl restart wicketgate-agent` on this host";

/// Whether it is the state directory of the package's service, on a host that runs it.
pub(crate) fn is_of_service(state_dir: &Path) -> bool {
    state_dir == Path::new(STATE_DIR) && Path::new(SYSTEMD).is_dir()
}

/// What to do about an identity that the server refuses: a sentence. The shares of the environment need an agent of the same one.
pub(crate) fn enrol_again(state_dir: &Path, environment: EnvironmentId) -> String {
    if is_of_service(state_dir) {
        format!(
            "To enrol it again, make a code with `wicketgate agent enroll --env {environment} --jq .enrollmentCode` on the server, \
             then run `wicketgate-agent enroll` and `systemctl restart wicketgate-agent` on this host"
        )
    } else {
        format!(
            "To enrol it again, start it with a new code, of `wicketgate agent enroll --env {environment}` on the server: it \
             replaces the identity in {}",
            state_dir.display()
        )
    }
}
