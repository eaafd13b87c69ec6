//! The admin token that the command line finds on the server's host is sent to that server only.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::fchown,
    process::Output,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use wicketgate_lab::Namespace;

use crate::harness::{lab, wicketgate_executable};

/// A user without rights.
const NOBODY: u32 = 65534;

/// What `wicketgate status` says where a server has left its token, which belongs to `owner`.
fn status(host: &Namespace, owner: u32) -> Result<Output> {
    let mut command = host.command("unshare");
    let script = "mount -t tmpfs none /var/lib && mkdir /var/lib/wicketgate && cd /var/lib/wicketgate && \
                  echo the-token-of-this-host > admin.token && chown $1 admin.token && exec $0 status";
    let program = wicketgate_executable().display().to_string();
    command.args(["--mount", "sh", "-c", script, &program, &owner.to_string()]);
    for variable in ["API", "TOKEN_FILE", "CA", "FRONTDOOR", "CONTEXT"] {
        command.env_remove(format!("WICKETGATE_{variable}"));
    }
    Ok(command.env("XDG_CONFIG_HOME", "/var/lib/none").output()?)
}

#[test]
fn the_admin_token_goes_to_no_other_user_of_its_host() -> Result<()> {
    let lab = lab()?;
    let host = lab.namespace("gw")?;
    let says = |owner: u32, status_wanted: i32, wanted: &str| -> Result<()> {
        let out = status(&host, owner)?;
        let words = String::from_utf8(out.stderr)?;
        ensure!(
            out.status.code() == Some(status_wanted) && words.contains(wanted),
            "{}: {words}",
            out.status
        );
        Ok(())
    };
    says(0, 1, "http://127.0.0.1:8480/ cannot be reached: nothing listens there")?;
    for on in ["127.0.0.1:8480", "0.0.0.0:8480", "[::]:8480"] {
        let listener = host.listen(on.parse()?)?;
        fchown(&listener, Some(NOBODY), None)?;
        listener.set_nonblocking(true)?;
        says(
            0,
            1,
            "is served by user 65534, who is not the owner of the admin token, so that it was not sent",
        )?;
        let asked = listener.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(asked, Err(ErrorKind::WouldBlock), "{on}: it was asked");

        listener.set_nonblocking(false)?;
        for (user, owner) in [(0, NOBODY), (NOBODY, NOBODY)] {
            fchown(&listener, Some(user), None)?;
            thread::scope(|scope| {
                let asked = scope.spawn(|| -> Result<String> {
                    let (mut stream, mut head) = (listener.accept()?.0, Vec::new());
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        stream.read_exact(&mut byte)?;
                        head.extend(byte);
                    }
                    stream.write_all(b"HTTP/1.1 401 No\r\nconnection: close\r\n\r\n")?;
                    Ok(String::from_utf8(head)?)
                });
                says(owner, 4, "not signed in")?;
                let head = asked.join().ok().context("the listener panicked")??;
                ensure!(head.contains("the-token-of-this-host"), "{head}");
                Ok(())
            })?;
        }
    }
    lab.remove()
}
