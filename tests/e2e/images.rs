//! The OCI images, run by crun with the configuration that they contain: the user, the program, the environment.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{GatewayOptions, GatewayProcess, Lab, Namespace, Process, run};

use crate::harness::{
    PATIENCE, World, door, gateway_options, lab,
    targets::{ask, here},
};

/// The directory in the agent's image in which it keeps its identity.
const STATE: &str = "var/lib/wicketgate-agent";
/// The architecture of this machine, as images name it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// For a container: only processes of the machine itself may use its control groups, and crun wants some of the second
/// version. The mounts end with the container.
const APART: &str = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && \
                     exec crun --root \"$1/state\" --cgroup-manager disabled run --bundle \"$1/bundle\" \"$2\"";
/// Replaces the arguments in the settings of a container.
const GIVE: &str = "import json, sys\n\
                    settings = json.load(open(sys.argv[1]))\n\
                    settings['process']['args'][1:] = sys.argv[2:]\n\
                    json.dump(settings, sys.stdout)";
/// What docs/PACKAGES.md says that a gateway's container needs.
const CAPABILITIES: [&str; 9] = [
    "CAP_NET_ADMIN",
    "CAP_SYS_ADMIN",
    "CAP_NET_RAW",
    "CAP_NET_BIND_SERVICE",
    "CAP_DAC_OVERRIDE",
    "CAP_CHOWN",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_KILL",
];

/// An image, unpacked for one container.
struct Image {
    name: &'static str,
    dir: PathBuf,
    settings: Value,
}

impl Image {
    fn unpack(lab: &Lab, name: &'static str) -> Result<Self> {
        let images = std::env::var_os("WICKETGATE_TEST_IMAGES");
        let images = images.context("WICKETGATE_TEST_IMAGES is not set: run `make test-images`")?;
        let archive = Path::new(&images).join(format!("{name}-{ARCHITECTURE}.tar"));
        let (dir, layout) = (lab.dir(name)?, lab.dir(&format!("{name}-layout"))?);
        run(Command::new("tar").arg("-C").arg(&layout).arg("-xf").arg(&archive))?;
        let image = format!("{}:{name}", layout.display());
        run(Command::new("umoci").args(["unpack", "--image", &image]).arg(dir.join("bundle")))?;
        let settings = serde_json::from_slice(&fs::read(dir.join("bundle/config.json"))?)?;
        let mut image = Self { name, dir, settings };
        image.join_network()?;
        Ok(image)
    }

    fn file(&self, path: &str) -> PathBuf {
        self.dir.join("bundle/rootfs").join(path)
    }

    /// A container of the image in the network namespace of whoever starts it.
    fn join_network(&mut self) -> Result<()> {
        self.settings["process"]["terminal"] = false.into();
        let without = |list: &mut Value, key: &str, value: &str| {
            list.as_array_mut().map(|list| list.retain(|it| it[key] != value)).context("not a list")
        };
        without(&mut self.settings["linux"]["namespaces"], "type", "network")?;
        without(&mut self.settings["mounts"], "type", "cgroup")?;
        // What umoci mounts at the image's volumes belongs to root. A runtime gives a volume the owner that the directory has in
        // the image, as it does without a mount.
        without(&mut self.settings["mounts"], "source", "none")?;
        Ok(())
    }

    /// What a runtime is told beside what the image contains.
    fn add(&mut self, to: &str, more: impl IntoIterator<Item = Value>) -> Result<()> {
        let list = self.settings.pointer_mut(to).and_then(Value::as_array_mut);
        list.with_context(|| format!("no list at {to}")).map(|list| list.extend(more))
    }

    /// Runs the image's program with its own arguments.
    fn start(self, lab: &Lab, namespace: &Namespace) -> Result<Process> {
        fs::write(self.dir.join("bundle/config.json"), self.settings.to_string())?;
        let mut command = namespace.command("unshare");
        command.args(["--mount", "--cgroup", "sh", "-c", APART, "sh"]).arg(&self.dir).arg(self.name);
        Process::start(lab, self.name, &mut command, &lab.dir("log")?.join(format!("{}.log", self.name)))
    }

    /// Lines of a script that runs the image's program with the script's arguments, as a runtime does with those after the
    /// image's name.
    fn script(&self) -> Result<String> {
        let (dir, name) = (self.dir.display(), self.name);
        fs::write(self.dir.join("settings.json"), self.settings.to_string())?;
        Ok(format!(
            "python3 - {dir}/settings.json \"$@\" >{dir}/bundle/config.json <<'END'\n{GIVE}\nEND\n\
             exec unshare --mount --cgroup sh -c '{APART}' sh {dir} {name}"
        ))
    }
}

#[test]
#[ignore = "needs the images: make test-images"]
fn the_agents_image_enrols_and_serves_as_a_user_without_privileges() -> Result<()> {
    let world = World::loopback().start()?;
    let mut image = Image::unpack(&world.lab, "wicketgate-agent")?;
    ensure!(image.settings["process"]["user"] == json!({"uid": 65532, "gid": 65532}), "{}", image.settings);
    let state = image.file(STATE);
    let server = format!("WICKETGATE_SERVER=https://{}", world.agents_dial());
    let code = format!("WICKETGATE_ENROLLMENT_TOKEN={}", world.gateway.enrollment_code()?);
    image.add("/process/env", [server.into(), code.into()])?;
    let mut agent = image.start(&world.lab, &world.private)?;
    let zid = agent.until(&world.lab, "the environment is ACTIVE", PATIENCE, |_| {
        let environments = world.gateway.list("environments")?;
        let active = environments.iter().find(|e| e["status"] == "ACTIVE");
        Ok(active.and_then(|e| e["zId"].as_str().map(str::to_owned)))
    })?;
    let tunnel = world.tunnel(0)?;
    here(&world.private, world.target(7001))?;
    world.share("greeting", &tunnel, &zid, world.target(7001), 9000)?;
    ensure!(ask(&world.outside, door(&tunnel, 9000)?, PATIENCE)? == "here");

    ensure!(fs::read_dir(&state)?.count() > 0, "no identity in {}", state.display());
    let ended = agent.stop(PATIENCE)?;
    ensure!(ended.success(), "{ended}: {}", agent.tail());
    world.end()
}

#[test]
#[ignore = "needs the images: make test-images"]
fn the_servers_image_tells_its_version_and_becomes_ready() -> Result<()> {
    let lab = lab()?;
    let host = lab.namespace("gw")?;
    let mut image = Image::unpack(&lab, "wicketgate")?;
    let version = run(Command::new("chroot").arg(image.file("")).args(["/usr/bin/wicketgate", "--version"]))?;
    ensure!(version == concat!("wicketgate ", env!("CARGO_PKG_VERSION")), "{version}");
    for file in ["etc/resolv.conf", "etc/hostname"] {
        let left = fs::read(image.file(file)).unwrap_or_default();
        ensure!(left.is_empty(), "/{file} is that of the host that built the image");
    }
    image.add("/process/args", ["--ipsec".into(), "off".into()])?;
    let mut server = image.start(&lab, &host)?;
    server.until(&lab, "the server is ready", PATIENCE, |_| {
        let mut curl = host.command("curl");
        let out = curl
            .args(["-q", "-s", "-o", "/dev/null", "-w", "%{http_code}"])
            .arg("http://127.0.0.1:8480/readyz")
            .output()?;
        Ok((out.stdout == b"200").then_some(()))
    })?;
    let ended = server.stop(PATIENCE)?;
    ensure!(ended.success(), "{ended}: {}", server.tail());
    lab.remove()
}

#[test]
#[ignore = "needs the images: make test-images"]
fn the_gateways_image_carries_a_share_over_ipsec() -> Result<()> {
    let mut world = World::with_sites(1).start()?;
    world.gateway.process.stop(PATIENCE)?;
    let mut image = Image::unpack(&world.lab, "wicketgate")?;
    for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        image.settings["process"]["capabilities"][set] = json!(CAPABILITIES);
    }
    // The test knows the token from the world's own data directory.
    let data = world.gateway.data.clone();
    image.add(
        "/mounts",
        [json!({"destination": data, "source": data, "type": "bind", "options": ["bind", "rw"]})],
    )?;
    image.settings["linux"]["devices"] =
        json!([{"type": "c", "path": "/dev/net/tun", "major": 10, "minor": 200}]);
    image.settings["linux"]["resources"] = json!({});
    // The settings of the tunnels' networks.
    image.settings["linux"]["readonlyPaths"] = json!([]);
    let executable = &world.script("wicketgate", &image.script()?)?;
    let options = gateway_options(&world.outside, "auto", "info");
    world.gateway = GatewayProcess::start(&world.lab, &GatewayOptions { executable, ..options })?;

    let tunnel = world.tunnel(0)?;
    let (_agent, door) = world.greeting(&tunnel)?;
    let site = world.connected_site(0, &tunnel)?;
    ensure!(ask(&site.namespace, door, PATIENCE)? == "here");
    world.end()
}
