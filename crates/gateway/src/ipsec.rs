//! The IPsec back ends: what makes a tunnel's IKE and ESP, and the place where its listeners are bound.
//!
//! Everything here compares what should be with what is: [`Backend::ensure`] may be called at any time and again,
//! and adopts what an earlier run of the same instance left. Dropping a [`Backend`] leaves every tunnel as it is.

mod home_netns;
mod off;
mod probe;
mod strongswan;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Notify, watch};
use wicketgate_model::{Connection, EspMode, Problem, TunnelDesired, TunnelId};

use crate::{
    listener::prepare,
    netns::{Namespace, NetnsError, guard::EspPath},
};
use off::Off;
use strongswan::Strongswan;

/// Connections that wait to be accepted: what the kernel takes at most unless it was told otherwise is 4,096.
const BACKLOG: i32 = 1024;

/// Which back end to use, as the command line has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpsecMode {
    /// ESP in the kernel where it can, else in userland.
    #[default]
    Auto,
    Kernel,
    Userland,
    /// No IPsec and no root: for development and benchmarks.
    Off,
}

impl IpsecMode {
    const ALL: [Self; 4] = [Self::Auto, Self::Kernel, Self::Userland, Self::Off];

    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::Userland => "userland",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for IpsecMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for IpsecMode {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == s)
            .ok_or_else(|| "must be auto, kernel, userland or off".to_owned())
    }
}

#[derive(Debug, Clone)]
pub struct IpsecConfig {
    pub mode: IpsecMode,
    /// Exists, mode 0700. One running gateway has it to itself.
    pub state_dir: PathBuf,
    /// What peers dial; `None` for the source address of the default route. It need not be an address of this
    /// host: behind a 1:1 NAT it is not.
    pub public_address: Option<Ipv4Addr>,
}

/// Why there can be no IPsec on this machine as it is. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum IpsecError {
    #[error(
        "IPsec needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN): start the gateway as root, or with --ipsec off \
         for development without IPsec"
    )]
    NotRoot,
    #[error(
        "what this process mounts at /run/netns nobody else would see (it was started by `ip netns exec`, or in a sandbox \
         of a service): start it with the machine's own mounts; in the network namespace NAME with `nsenter \
         --net=/run/netns/NAME wicketgate`, in a unit without PrivateTmp=, ProtectSystem= and the like"
    )]
    HiddenNames,
    #[error(
        "what the last run left is in another network namespace: run it there, with `nsenter --net={} wicketgate`, or end \
         it there with `wicketgate down`; if that one is a stranger's, nothing is left: remove {}",
        .found.display(), .file.display()
    )]
    Elsewhere { found: PathBuf, file: PathBuf },
    #[error("{program} is missing: install {package} (Debian: apt-get install {package})")]
    Missing { program: &'static str, package: &'static str },
    #[error(
        "the kernel has no ESP (modules esp4 and xfrm_user): use --ipsec userland, or a kernel with CONFIG_INET_ESP"
    )]
    NoKernelEsp,
    #[error(
        "there is no TUN device for ESP in userland: load the module tun, or give the container /dev/net/tun ({0})"
    )]
    NoTun(String),
    #[error("neither kernel nor userland can do ESP here: {kernel}; {userland}")]
    NoEsp { kernel: Box<IpsecError>, userland: Box<IpsecError> },
    #[error("the host has no default route to tell its public address by: name it with --public-address")]
    NoPublicAddress,
    #[error(
        "{given} is no address of this host, which has {}; nor can it be one that a NAT in front of it translates, since \
         there is no default route: give --public-address one of its own, or add the route",
        addresses(has)
    )]
    NotAnAddress { given: Ipv4Addr, has: Vec<Ipv4Addr> },
    #[error("another gateway is running with the state directory {0}: stop it, or use another directory")]
    InUse(PathBuf),
    #[error("can't use the state directory {path}: {source}")]
    StateDir { path: PathBuf, source: io::Error },
    #[error("can't prepare the network: {0}")]
    Network(#[from] NetnsError),
}

fn addresses(all: &[Ipv4Addr]) -> String {
    if all.is_empty() {
        return "none but loopback".to_owned();
    }
    all.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ")
}

/// A back end.
#[derive(Debug)]
pub enum Backend {
    Strongswan(Box<Strongswan>),
    Off(Off),
}

impl IpsecMode {
    /// Whether this process and this machine have what it takes at all. Changes nothing; [`Backend::start`] looks
    /// closer.
    ///
    /// # Errors
    /// One clear line each, see [`IpsecError`].
    pub fn preflight(self) -> Result<(), IpsecError> {
        if self == Self::Off { Ok(()) } else { probe::preflight() }
    }
}

impl Backend {
    /// Looks at what the machine can do, and takes possession of the state directory.
    ///
    /// # Errors
    /// One clear line each, see [`IpsecError`].
    pub async fn start(config: IpsecConfig) -> Result<Self, IpsecError> {
        if config.mode == IpsecMode::Off {
            return Ok(Self::Off(Off::default()));
        }
        Ok(Self::Strongswan(Box::new(Strongswan::start(config).await?)))
    }

    pub fn esp(&self) -> EspMode {
        match self {
            Self::Strongswan(strongswan) => match strongswan.esp() {
                EspPath::Kernel => EspMode::Kernel,
                EspPath::Userland => EspMode::Userland,
            },
            Self::Off(_) => EspMode::Off,
        }
    }

    /// What peers dial; `None` without IPsec.
    pub fn public_address(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Strongswan(strongswan) => Some(strongswan.public_address()),
            Self::Off(_) => None,
        }
    }

    /// Warns of what the machine is not well set up for, for a run that serves tunnels.
    pub(crate) fn advise(&self) {
        if let Self::Strongswan(strongswan) = self {
            strongswan.advise();
        }
    }

    /// The tunnels that are on this machine and that nobody has asked for since the start.
    ///
    /// # Errors
    /// The state directory can't be read.
    pub async fn left_over(&self) -> io::Result<Vec<TunnelId>> {
        match self {
            Self::Strongswan(strongswan) => strongswan.left_over().await,
            Self::Off(_) => Ok(Vec::new()),
        }
    }

    /// The tunnel as an earlier run left it, if it stands: listeners may be bound in it at once. [`Backend::ensure`] is still
    /// to be asked for it, and answers with the same.
    pub fn found(&self, tunnel: &TunnelDesired) -> Option<Arc<Tunnel>> {
        match self {
            Self::Strongswan(strongswan) => strongswan.found(tunnel),
            Self::Off(_) => None,
        }
    }

    /// Brings a tunnel to what it should be, from whatever is there. The same tunnel comes back for as long as what
    /// is bound in it stays valid.
    ///
    /// # Errors
    /// What to tell whoever made the tunnel. Worth another try.
    pub async fn ensure(&self, tunnel: &TunnelDesired) -> Result<Arc<Tunnel>, Problem> {
        match self {
            Self::Strongswan(strongswan) => strongswan.ensure(tunnel).await,
            Self::Off(off) => Ok(off.ensure(tunnel)),
        }
    }

    /// Leaves nothing of a tunnel. One that is not there is removed already.
    ///
    /// # Errors
    /// Something is left. Worth another try.
    pub async fn remove(&self, tunnel: TunnelId) -> io::Result<()> {
        match self {
            Self::Strongswan(strongswan) => strongswan.remove(tunnel).await,
            Self::Off(off) => {
                off.remove(tunnel);
                Ok(())
            }
        }
    }

    /// For the end of a run: what is there lives on, and is counted. Where nothing is, the gateway's own rules go.
    ///
    /// # Errors
    /// As [`Backend::purge`].
    pub async fn rest(&self) -> io::Result<usize> {
        match self {
            Self::Strongswan(strongswan) => strongswan.rest().await,
            Self::Off(_) => Ok(0),
        }
    }

    /// Removes every tunnel and the gateway's own rules. A host that forwarded no packets before does not any more,
    /// unless another gateway on it needs it to.
    ///
    /// # Errors
    /// Something is left.
    pub async fn purge(&self) -> io::Result<()> {
        match self {
            Self::Strongswan(strongswan) => strongswan.purge().await,
            Self::Off(_) => Ok(()),
        }
    }
}

/// A tunnel that is set up. Whether its peer is there is its [`Connection`].
#[derive(Debug)]
pub struct Tunnel {
    place: Place,
    load_balancer: Ipv4Addr,
    connection: watch::Receiver<Connection>,
    problem: watch::Receiver<Option<Problem>>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
enum Place {
    Namespace(Namespace),
    Host,
}

impl Tunnel {
    /// Listens on `port` of the load balancer, inside the tunnel. The listener does not block, and works in any
    /// thread; it is deaf once the tunnel was removed.
    ///
    /// # Errors
    /// As for any listener; `AddrInUse` where another one has the port.
    pub fn bind(&self, port: u16) -> io::Result<TcpListener> {
        let bind = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddrV4::new(self.load_balancer, port).into())?;
            // Before the first connection: each has what the listener had when it came.
            prepare(&socket)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        match &self.place {
            Place::Namespace(namespace) => namespace.run(bind),
            Place::Host => bind(),
        }
    }

    pub fn load_balancer(&self) -> Ipv4Addr {
        self.load_balancer
    }

    /// The peer, as the IKE daemon sees it.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// Why the tunnel can't answer its peer just now: its daemon died and is not back yet.
    pub fn problem(&self) -> Option<Problem> {
        self.problem.borrow().clone()
    }

    /// Waits until the connection or the problem is another than before. For one waiter; cancel-safe, and a change
    /// while nobody waits is not missed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// The writing side of a [`Tunnel`].
#[derive(Debug)]
struct TunnelReporter {
    connection: watch::Sender<Connection>,
    problem: watch::Sender<Option<Problem>>,
    changed: Arc<Notify>,
}

impl TunnelReporter {
    fn new(now: jiff::Timestamp) -> Self {
        Self {
            connection: watch::Sender::new(Connection::down(now)),
            problem: watch::Sender::new(None),
            changed: Arc::default(),
        }
    }

    fn tunnel(&self, place: Place, load_balancer: Ipv4Addr) -> Arc<Tunnel> {
        Arc::new(Tunnel {
            place,
            load_balancer,
            connection: self.connection.subscribe(),
            problem: self.problem.subscribe(),
            changed: Arc::clone(&self.changed),
        })
    }

    fn set_connection(&self, connection: Connection) {
        if set(&self.connection, connection) {
            self.changed.notify_one();
        }
    }

    fn set_problem(&self, problem: Option<Problem>) {
        if set(&self.problem, problem) {
            self.changed.notify_one();
        }
    }
}

fn set<T: PartialEq>(sender: &watch::Sender<T>, value: T) -> bool {
    sender.send_if_modified(|old| {
        let differs = *old != value;
        if differs {
            *old = value;
        }
        differs
    })
}
