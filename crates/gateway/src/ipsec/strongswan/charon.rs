//! One charon process: started in its tunnel's namespace, or found there.
//!
//! It outlives this process. A file has its pid, written by the process itself before it became charon, and the pid is
//! valid if the process is in the tunnel's namespace, where no other runs. charon is confined to a root of its own, whose `/run`
//! has its configuration, its socket and the pid file that it writes itself. What is in there may be made by a charon that was
//! taken over: it is read as that, and removed before another one starts.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use rustix::{
    fs::{FileType, Mode, OFlags},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
    time::{sleep, timeout},
};
use wicketgate_system::{if_exists, private_file::private_dir};

use super::{confinement::Cell, installation::CHARON};
use crate::ground::{InnerPackets, Namespace, NetworkError};

/// A charon listens 60 to 110 ms after its start, on a busy machine later.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(3);

/// charon notifies its peers and ends within some ten milliseconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Looks for processes to end: each may have started another one meanwhile.
const PASSES: usize = 20;

/// A charon that is terminated ends its SAs at the peer, too.
const IN_ORDER: [Signal; 2] = [Signal::TERM, Signal::KILL];

/// `$1` is charon. The file for the pid is its standard input: the path is not in its root. A core would contain keys.
const START: &str = r#"umask 077; ulimit -c 0; echo $$ >&0 && exec "$1" </dev/null"#;

/// The files of a charon.
#[derive(Debug, Clone)]
pub(super) struct CharonHome {
    pub(super) dir: PathBuf,
    pub(super) namespace: Namespace,
    /// The desired content of its configuration file.
    pub(super) conf: String,
    pub(super) packets: InnerPackets,
    pub(super) cell: Cell,
}

/// A running charon. Dropping it leaves it running.
#[derive(Debug)]
pub(super) struct Charon {
    pub(super) pid: i32,
    process: AsyncFd<OwnedFd>,
    /// A child process must be waited for; an adopted one is not ours.
    child: Option<Child>,
    /// Kept open, because a socket's path must be short and this one may be long.
    run: OwnedFd,
}

impl CharonHome {
    /// The charon that runs here, if it has the desired configuration and answers. Any other is ended.
    pub(super) async fn adopt(&self) -> Result<Option<Charon>, NetworkError> {
        let Some((pid, process)) = self.process()? else { return Ok(None) };
        let charon = Charon { pid, process, child: None, run: self.open_run()? };
        if has_conf(&self.dir, &self.conf) && timeout(START_POLL * 100, charon.listens()).await.is_ok() {
            return Ok(Some(charon));
        }
        charon.stop().await;
        Ok(None)
    }

    /// Starts a charon in place of any that runs here, and waits until it listens.
    pub(super) async fn start(&self) -> Result<Charon, NetworkError> {
        // The file that leads to it is replaced soon, or its namespace is another one now.
        end(&self.dir, Some(&self.namespace)).await?;
        prepare(&self.dir, &self.conf, self.cell)
            .map_err(NetworkError::io("prepare the IKE daemon's directory"))?;
        let (dir, cell, run_fd) = (self.dir.clone(), self.cell, self.open_run()?);
        let (process, child) =
            self.namespace.run_blocking("start the IKE daemon", move || spawn(&dir, cell)).await?;
        let process = watch(process).map_err(NetworkError::io("watch the IKE daemon"))?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let mut charon = Charon { pid, process, child: Some(child), run: run_fd };
        let listens = async {
            tokio::select! {
                () = charon.listens() => true,
                () = ended(&charon.process) => false,
            }
        };
        let message = match timeout(START_TIMEOUT, listens).await {
            Ok(true) => return Ok(charon),
            Ok(false) => {
                charon.reap();
                "it ended at once"
            }
            Err(_) => {
                charon.stop().await;
                "it does not listen"
            }
        };
        let log = run(&self.dir).join("charon.log");
        Err(NetworkError::refused("start the IKE daemon", format!("{message}: see {}", log.display())))
    }

    /// Ends whatever runs here.
    pub(super) async fn stop(&self) -> Result<(), NetworkError> {
        if let Some((_, process)) = self.process()? {
            stop(&process, &IN_ORDER).await;
        }
        // A start that was interrupted left no file.
        end(&self.dir, Some(&self.namespace)).await
    }

    fn process(&self) -> Result<Option<(i32, AsyncFd<OwnedFd>)>, NetworkError> {
        let pid = std::fs::read_to_string(self.dir.join("pid")).ok().and_then(|p| p.trim().parse().ok());
        // Checked after it was opened: a process that reused the pid is not in the namespace.
        let process = pid.and_then(|pid| Some((pid, open(pid).filter(|_| self.namespace.holds(pid))?)));
        process
            .map(|(pid, process)| Ok((pid, watch(process)?)))
            .transpose()
            .map_err(NetworkError::io("watch the IKE daemon"))
    }

    fn open_run(&self) -> Result<OwnedFd, NetworkError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(run(&self.dir), flags, Mode::empty())
            .map_err(|e| NetworkError::io("open the IKE daemon's directory")(e.into()))
    }
}

/// An open reference to a socket, whatever its name comes to mean.
pub(super) struct ViciSocket(OwnedFd);

impl ViciSocket {
    /// In a daemon's directory. A daemon that was taken over may put a link there, to the socket of another one.
    fn open(run: &OwnedFd) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = rustix::fs::openat(run, "charon.vici", flags, Mode::empty())?;
        let (found, run) = (rustix::fs::fstat(&socket)?, rustix::fs::fstat(run)?);
        let is_own = FileType::from_raw_mode(found.st_mode) == FileType::Socket && found.st_uid == run.st_uid;
        if is_own { Ok(Self(socket)) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Valid for as long as this value lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

impl Charon {
    /// Its VICI socket.
    ///
    /// # Errors
    ///
    /// There is none yet, or something else in its place.
    pub(super) fn socket(&self) -> io::Result<ViciSocket> {
        ViciSocket::open(&self.run)
    }

    /// Waits until the process has ended. Cancel-safe.
    pub(super) async fn exited(&mut self) {
        ended(&self.process).await;
        self.reap();
    }

    /// Terminates it, and kills it if needed.
    pub(super) async fn stop(mut self) {
        stop(&self.process, &IN_ORDER).await;
        self.reap();
    }

    pub(super) async fn kill(mut self) {
        stop(&self.process, &[Signal::KILL]).await;
        self.reap();
    }

    async fn listens(&self) {
        while !self.answers().await {
            sleep(START_POLL).await;
        }
    }

    async fn answers(&self) -> bool {
        let Ok(socket) = self.socket() else { return false };
        UnixStream::connect(socket.path()).await.is_ok()
    }

    fn reap(&mut self) {
        if let Some(child) = &mut self.child
            && let Err(error) = child.try_wait()
        {
            tracing::warn!(%error, "could not wait for an IKE daemon that ended");
        }
    }
}

/// Whether the charon that runs here was started with this configuration.
fn has_conf(dir: &Path, conf: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(run(dir).join("strongswan.conf"), flags, Mode::empty());
    let Ok(file) = opened.map(std::fs::File::from) else { return false };
    let (mut has, most) = (String::new(), u64::try_from(conf.len()).unwrap_or(u64::MAX).saturating_add(1));
    let is_file = file.metadata().is_ok_and(|m| m.is_file());
    is_file && file.take(most).read_to_string(&mut has).is_ok() && has == conf
}

/// Makes the directories of a charon with its configuration. A stale pid file prevents a start, and a stale socket looks like a
/// listening one. Nothing is written through what a charon of before has left.
fn prepare(dir: &Path, conf: &str, cell: Cell) -> io::Result<()> {
    let (run, root) = (run(dir), dir.join("root"));
    if_exists(std::fs::remove_dir_all(&run))?;
    if_exists(std::fs::remove_file(dir.join("pid")))?;
    private_dir(&run)?;
    private_dir(&root)?;
    let file = run.join("strongswan.conf");
    create(&file)?.write_all(conf.as_bytes())?;
    cell.own(&file)?;
    cell.own(&run)
}

/// Ends every charon whose `/run` is this daemon's directory, in any namespace, and every one in `namespace`, with any
/// directory: either may have been replaced. And all that its user runs: a daemon that was taken over starts what it likes, and
/// the next tunnel with its number has the same user.
pub(super) async fn end(dir: &Path, namespace: Option<&Namespace>) -> Result<(), NetworkError> {
    for _ in 0..PASSES {
        if !end_some(dir, namespace).await? {
            return Ok(());
        }
    }
    let error = io::Error::other("it starts others faster than they can be ended");
    Err(NetworkError::io("end the IKE daemon")(error))
}

/// Ends the processes that there are; returns whether there were any.
async fn end_some(dir: &Path, namespace: Option<&Namespace>) -> Result<bool, NetworkError> {
    // A missing directory matches nothing.
    let own = std::fs::metadata(run(dir)).ok();
    let user = own.as_ref().map(|found| found.uid()).filter(|user| Cell::is_user(*user));
    let inode = |found: &std::fs::Metadata| (found.dev(), found.ino());
    let entries = std::fs::read_dir("/proc").map_err(NetworkError::io("list the processes"))?;
    let mut were_some = false;
    for pid in entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()) {
        let has_dir = || {
            let found = std::fs::metadata(format!("/proc/{pid}/root/run")).ok();
            own.is_some() && found.as_ref().map(inode) == own.as_ref().map(inode)
        };
        let is_inside = || namespace.is_some_and(|namespace| namespace.holds(pid));
        let is_users = || user.is_some() && user_of(pid) == user;
        let is_ours = || is_users() || runs(pid, Path::new(CHARON)) && (has_dir() || is_inside());
        // Checked again after it was opened: the pid may have been reused.
        if is_ours()
            && let Some(process) = open(pid).filter(|_| is_ours())
        {
            let process = watch(process).map_err(NetworkError::io("watch the IKE daemon"))?;
            let signals: &[_] = if runs(pid, Path::new(CHARON)) { &IN_ORDER } else { &[Signal::KILL] };
            stop(&process, signals).await;
            were_some = true;
        }
    }
    Ok(were_some)
}

/// The user that a process runs as.
fn user_of(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    // One that has ended may wait for its parent.
    if field("State:") == Some("Z") { None } else { field("Uid:")?.parse().ok() }
}

/// Whether the process runs `program`, or an older version that was replaced on disk.
fn runs(pid: i32, program: &Path) -> bool {
    let Ok(executable) = std::fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let executable = executable.as_os_str().as_bytes();
    executable.strip_suffix(b" (deleted)").unwrap_or(executable) == program.as_os_str().as_bytes()
}

fn run(dir: &Path) -> PathBuf {
    dir.join("run")
}

/// Sends a process these signals, until it has ended.
async fn stop(process: &AsyncFd<OwnedFd>, signals: &[Signal]) {
    for signal in signals {
        // It may have ended: then the wait returns at once.
        let _ = pidfd_send_signal(process.get_ref(), *signal);
        if timeout(STOP_TIMEOUT, ended(process)).await.is_ok() {
            break;
        }
    }
}

/// A pidfd is readable once its process has ended.
async fn ended(process: &AsyncFd<OwnedFd>) {
    if let Err(error) = process.readable().await {
        tracing::warn!(%error, "could not watch an IKE daemon");
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for types that could close the descriptor; an OwnedFd does not"
)]
fn watch(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(process, Interest::READABLE)
}

fn open(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// Runs on a thread of its own inside the namespace, which it confines further, and which the child inherits. `setsid` takes the
/// child out of our process group and session, so that no terminal signal reaches it; it becomes the shell, which becomes charon.
fn spawn(dir: &Path, cell: Cell) -> io::Result<(OwnedFd, Child)> {
    let (output, pid) = (create(&dir.join("output"))?, create(&dir.join("pid"))?);
    cell.enter(dir).map_err(|e| io::Error::new(e.kind(), format!("cannot confine it: {e}")))?;
    let mut child = Command::new("setsid")
        .args(["sh", "-c", START, "sh", CHARON])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("STRONGSWAN_CONF", "/run/strongswan.conf")
        .current_dir("/")
        .stdin(pid)
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    match i32::try_from(child.id()).ok().and_then(open) {
        Some(process) => Ok((process, child)),
        None => {
            child.kill()?;
            child.wait()?;
            Err(io::Error::other("the kernel has no pidfd: Linux 5.3 or newer is needed"))
        }
    }
}

fn create(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipsec::strongswan::confinement::Confinement;
    use wicketgate_model::EspMode;

    #[test]
    fn what_a_daemon_left_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let cell = Confinement::find(EspMode::Kernel, 0, dir.path()).of_slot(0);
        let (victim, conf) = (dir.path().join("victim"), run(dir.path()).join("strongswan.conf"));
        std::fs::write(&victim, "conf").unwrap();
        private_dir(&run(dir.path())).unwrap();
        std::os::unix::fs::symlink(&victim, &conf).unwrap();
        assert!(!has_conf(dir.path(), "conf"));
        prepare(dir.path(), "own", cell).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "conf");
        assert!(has_conf(dir.path(), "own") && !has_conf(dir.path(), "ow") && !has_conf(dir.path(), "owns"));
        // A pipe without a writer is not waited for.
        std::fs::remove_file(&conf).unwrap();
        let status = Command::new("mkfifo").arg(&conf).status().unwrap();
        assert!(status.success() && !has_conf(dir.path(), "own"));
        // Nor is the directory itself followed.
        std::fs::remove_dir_all(run(dir.path())).unwrap();
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("kept"), "").unwrap();
        std::os::unix::fs::symlink(other.path(), run(dir.path())).unwrap();
        assert!(
            prepare(dir.path(), "own", cell).is_err() || run(dir.path()).symlink_metadata().unwrap().is_dir()
        );
        assert!(other.path().join("kept").exists());
    }

    #[test]
    fn a_link_in_the_place_of_a_daemons_socket_is_not_followed() {
        let [dir, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let run = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let place = dir.path().join("charon.vici");
        assert!(ViciSocket::open(&run).is_err(), "there is none");
        let own = std::os::unix::net::UnixListener::bind(&place).unwrap();
        let opened = ViciSocket::open(&run).unwrap();
        std::os::unix::net::UnixStream::connect(opened.path()).unwrap();
        own.accept().unwrap();
        let others = other.path().join("charon.vici");
        let _victim = std::os::unix::net::UnixListener::bind(&others).unwrap();
        std::fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink(&others, &place).unwrap();
        assert!(ViciSocket::open(&run).is_err(), "the link was followed");
    }

    #[test]
    fn a_program_is_recognised_after_its_file_was_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let [program, newer] =
            ["charon", "charon.new"].map(|name| dir.path().canonicalize().unwrap().join(name));
        for file in [&program, &newer] {
            std::fs::copy("/bin/sleep", file).unwrap();
        }
        let mut child = Command::new(&program).arg("60").spawn().unwrap();
        let pid = child.id().try_into().unwrap();
        let before = runs(pid, &program);
        std::fs::rename(&newer, &program).unwrap();
        let after = [&program, &newer].map(|program| runs(pid, program));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((before, after), (true, [true, false]));
    }
}
