//! A secret that the command line sends to an address of its own host without TLS goes to the server only.

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

/// Commands that send a secret.
const COMMANDS: [&str; 7] = [
    "status",
    "status --token-file admin.token",
    "status --server http://127.0.0.1:8480 --token-file admin.token",
    "status --server http://localhost:8480 --token-file admin.token",
    "status --context here",
    "login --server http://127.0.0.1:8480 --token-file admin.token",
    "login --server http://127.0.0.1:8480 --account acc-1 --secret-file admin.token",
];

/// What a command of `wicketgate` says where a server has left its token, which belongs to `owner`.
fn run(host: &Namespace, owner: u32, command_line: &str) -> Result<Output> {
    let mut command = host.command("unshare");
    let script = "mount -t tmpfs none /var/lib && mkdir -p /var/lib/wicketgate /var/lib/none/wicketgate && \
                  cd /var/lib/wicketgate && echo the-token-of-this-host > admin.token && chown $1 admin.token && \
                  cp -p admin.token ../none/wicketgate/here.secret && \
                  printf '[contexts.here]\nserver = \"http://127.0.0.1:8480\"\n' > ../none/wicketgate/contexts.toml && \
                  exec $0 $2";
    let program = wicketgate_executable().display().to_string();
    command.args(["--mount", "sh", "-c", script, &program, &owner.to_string(), command_line]);
    for variable in ["API", "TOKEN_FILE", "CA", "FRONTDOOR", "CONTEXT"] {
        command.env_remove(format!("WICKETGATE_{variable}"));
    }
    Ok(command.env("XDG_CONFIG_HOME", "/var/lib/none").output()?)
}

#[test]
fn a_secret_goes_to_no_other_user_of_its_host() -> Result<()> {
    let lab = lab()?;
    let host = lab.namespace("gw")?;
    let says = |command: &str, owner: u32, status_wanted: i32, wanted: &str| -> Result<()> {
        let out = run(&host, owner, command)?;
        let words = String::from_utf8(out.stderr)?;
        ensure!(
            out.status.code() == Some(status_wanted) && words.contains(wanted),
            "{command}: {}: {words}",
            out.status
        );
        Ok(())
    };
    says("status", 0, 1, "http://127.0.0.1:8480/ cannot be reached: nothing listens there")?;
    for on in ["127.0.0.1:8480", "0.0.0.0:8480", "[::]:8480"] {
        let listener = host.listen(on.parse()?)?;
        fchown(&listener, Some(NOBODY), None)?;
        listener.set_nonblocking(true)?;
        for command in COMMANDS {
            let stranger = "is served by user 65534, who is neither root nor the owner of the secret";
            says(command, 0, 1, stranger)?;
            let asked = listener.accept().map(drop).map_err(|error| error.kind());
            assert_eq!(asked, Err(ErrorKind::WouldBlock), "{command}, {on}: it was asked");
        }

        listener.set_nonblocking(false)?;
        let users = [(0, NOBODY), (NOBODY, NOBODY)];
        for ((user, owner), command) in
            users.into_iter().flat_map(|of| COMMANDS[..6].iter().map(move |c| (of, c)))
        {
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
                says(command, owner, 4, "not signed in")?;
                let head = asked.join().ok().context("the listener panicked")??;
                ensure!(head.contains("the-token-of-this-host"), "{head}");
                Ok(())
            })?;
        }
    }
    lab.remove()
}
