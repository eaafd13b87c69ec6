//! Copies over SSH, HTTP/2, WebSockets and gRPC.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use wicketgate_lab::run;

use super::scene::{Published, Scene};

const SSH: u16 = 2222;
const HTTP2: u16 = 8082;
const WEBSOCKET: u16 = 8083;
const GRPC: u16 = 8084;

/// Debian's, for which the modules are installed.
const PYTHON: &str = "/usr/bin/python3";

/// The size of a file that is copied to the server and back.
const FILE: usize = 10_000_000;
/// The files that are requested at once over one HTTP/2 connection, and the size of each.
const PAGES: usize = 20;
const PAGE: usize = 500_000;

pub(super) fn scp(scene: &Scene) -> Result<Published> {
    let (dir, files) = (scene.world.lab.dir("ssh")?, scene.directory("ssh-files")?);
    for key in ["host", "client"] {
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key)))?;
    }
    let at = dir.display();
    let config = format!(
        "ListenAddress {}\nHostKey {at}/host\nAuthorizedKeysFile {at}/client.pub\nStrictModes no\nUsePAM no\n\
         PidFile none\nAllowUsers nobody\nSubsystem sftp internal-sftp\nForceCommand internal-sftp\n",
        scene.world.target(SSH)
    );
    fs::write(dir.join("config"), config)?;
    // Its privilege separation needs an empty directory at a path that is compiled in.
    let mut server = scene.world.private.command("unshare");
    server.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    server.arg(r#"mount -t tmpfs -o mode=755 none /run; mkdir /run/sshd; exec /usr/sbin/sshd -D -e -f "$0""#);
    scene.serve("sshd", server.arg(dir.join("config")), SSH)?;

    let published = scene.publish("ssh", SSH)?;
    let file = scene.file("file", FILE)?;
    let (there, back) = (files.join("file"), file.with_extension("back"));
    let remote = format!("nobody@{}:{}", published.ip(), there.display());
    let copy = |from: &Path, to: &Path| {
        let mut scp = scene.client("scp");
        scp.args(["-q", "-F", "none", "-P", &published.port(), "-i"]).arg(dir.join("client"));
        scp.args([
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        run(scp.args([from, to]))
    };
    copy(&file, Path::new(&remote))?;
    copy(Path::new(&remote), &back)?;
    same(&file, &there)?;
    same(&file, &back)?;
    Ok(published)
}

pub(super) fn http2(scene: &Scene) -> Result<Published> {
    let dir = scene.directory("http2")?;
    let pages = scene.directory("http2/www")?;
    let at = dir.display();
    let mut openssl = scene.as_nobody("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-batch",
    ]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]).arg(dir.join("key"));
    run(openssl.arg("-out").arg(dir.join("certificate")))?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
        .collect();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log stderr;\nevents {{ worker_connections 64; }}\n\
         http {{ {temporary} access_log off;\n server {{ listen {} ssl http2; root {at}/www; dav_methods PUT;\n\
         ssl_certificate {at}/certificate; ssl_certificate_key {at}/key; client_max_body_size 100m; }} }}\n",
        scene.world.target(HTTP2)
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config)?;
    let mut server = scene.as_nobody("nginx");
    server.args(["-e", "stderr", "-p"]).arg(&dir).arg("-c").arg(&file);
    scene.serve("http2", &mut server, HTTP2)?;

    let published = scene.publish("http2", HTTP2)?;
    let curl = || {
        let mut curl = scene.client("curl");
        curl.args(["-q", "-sS", "--fail", "--noproxy", "*", "--cacert"]).arg(dir.join("certificate"));
        curl
    };
    let upload = scene.file("upload", FILE)?;
    run(curl().arg("-T").arg(&upload).arg(format!("https://{}/upload", published.at())))?;
    same(&upload, &pages.join("upload"))?;
    for page in 0..PAGES {
        fs::copy(scene.file("page", PAGE + page)?, pages.join(page.to_string()))?;
    }
    let got = scene.world.lab.dir("client/pages")?;
    let mut download = curl();
    download.args([
        "-Z",
        "--parallel-max",
        &PAGES.to_string(),
        "-w",
        "%{http_version} %{http_code}\\n",
        "-o",
    ]);
    download.arg(got.join("#1")).arg(format!("https://{}/[0-{}]", published.at(), PAGES - 1));
    let said = run(&mut download)?;
    ensure!(said.lines().count() == PAGES && said.lines().all(|line| line == "2 200"), "{said}");
    for page in 0..PAGES {
        same(&pages.join(page.to_string()), &got.join(page.to_string()))?;
    }
    Ok(published)
}

pub(super) fn websocket(scene: &Scene) -> Result<Published> {
    echo(scene, "websocket", include_str!("websocket_echo.py"), WEBSOCKET)
}

pub(super) fn grpc(scene: &Scene) -> Result<Published> {
    echo(scene, "grpc", include_str!("grpc_echo.py"), GRPC)
}

/// Both ends are in the script. The client fails if an answer differs from what it has sent.
fn echo(scene: &Scene, name: &str, script: &str, port: u16) -> Result<Published> {
    let file = scene.world.lab.dir("scripts")?.join(format!("{name}_echo.py"));
    fs::write(&file, script)?;
    let target = scene.world.target(port);
    let mut server = scene.as_nobody(PYTHON);
    server.arg("-B").arg(&file).args(["serve", &target.ip().to_string(), &port.to_string()]);
    scene.serve(name, &mut server, port)?;
    let published = scene.publish(name, port)?;
    let mut client = scene.client(PYTHON);
    run(client.arg("-B").arg(&file).args(["use", &published.ip(), &published.port()]))?;
    Ok(published)
}

fn same(one: &Path, other: &Path) -> Result<()> {
    ensure!(fs::read(one)? == fs::read(other)?, "{} and {} differ", one.display(), other.display());
    Ok(())
}
