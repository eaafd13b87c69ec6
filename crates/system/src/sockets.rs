//! The sockets of this process's network namespace, as the kernel's tables show them (proc(5), `/proc/net`), and the
//! processes that have them.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::if_exists;

/// The state of a socket that listens (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// A socket with an address of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSocket {
    pub address: SocketAddr,
    /// The user whose process made it.
    pub user: u32,
    pub inode: u64,
}

impl LocalSocket {
    /// Whether what is sent to `destination` arrives here, unless a socket with a narrower address takes it.
    pub fn takes(&self, destination: SocketAddr) -> bool {
        let (own, wanted) = (self.address.ip().to_canonical(), destination.ip().to_canonical());
        let is_any = own.is_unspecified() && (own.is_ipv6() || wanted.is_ipv4());
        self.address.port() == destination.port() && (is_any || own == wanted)
    }

    /// Whether both cannot be bound at the same time.
    pub fn conflicts(&self, other: SocketAddr) -> bool {
        self.takes(other) || LocalSocket { address: other, ..*self }.takes(self.address)
    }
}

/// TCP sockets that listen.
///
/// # Errors
/// The kernel's tables cannot be read.
pub fn listening() -> io::Result<Vec<LocalSocket>> {
    // They come before all connections, of which there may be many.
    read(&["/proc/net/tcp", "/proc/net/tcp6"], |state| state == LISTEN)
}

/// UDP sockets.
///
/// # Errors
/// The kernel's tables cannot be read.
pub fn udp() -> io::Result<Vec<LocalSocket>> {
    read(&["/proc/net/udp", "/proc/net/udp6"], |_| true)
}

/// The lines of tables up to the first whose state is not wanted. A kernel may lack one of the tables, with its family.
fn read(tables: &[impl AsRef<Path>; 2], is_wanted: impl Fn(&str) -> bool) -> io::Result<Vec<LocalSocket>> {
    let mut all = Vec::new();
    let mut missing = 0;
    for path in tables {
        let Some(table) = if_exists(File::open(path))? else {
            missing += 1;
            continue;
        };
        for line in BufReader::new(table).lines().skip(1) {
            match parse(&line?) {
                Some((socket, state)) if is_wanted(&state) => all.push(socket),
                Some(_) => break,
                None => {}
            }
        }
    }
    if missing == tables.len() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the kernel shows no table of sockets"));
    }
    Ok(all)
}

/// A line of a table, and its state.
fn parse(line: &str) -> Option<(LocalSocket, String)> {
    let words: Vec<_> = line.split_whitespace().collect();
    // Number, local address, remote address, state, queues, timer, retransmissions, user, timeout, inode.
    let [_, local, _, state, _, _, _, user, _, inode, ..] = words[..] else { return None };
    let (ip, port) = local.split_once(':')?;
    let bytes: Option<Vec<_>> = (0..ip.len() / 8)
        // Each word of the address is in the order of this host.
        .map(|n| Some(u32::from_str_radix(ip.get(8 * n..8 * n + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let bytes = bytes?.concat();
    let ip: IpAddr = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?).into(),
    };
    let address = SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?);
    let socket = LocalSocket { address, user: user.parse().ok()?, inode: inode.parse().ok()? };
    Some((socket, state.to_owned()))
}

/// A process of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProcess {
    pub id: u32,
    pub name: String,
}

impl HostProcess {
    /// The processes that have the socket, as far as this user may see.
    pub fn with(socket: &LocalSocket) -> Vec<Self> {
        let wanted = PathBuf::from(format!("socket:[{}]", socket.inode));
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let holders = processes.filter_map(|process| {
            let id = process.file_name().to_string_lossy().parse().ok()?;
            open_files(id).find(|file| *file == wanted)?;
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            Some(Self { id, name: name.trim_end().escape_debug().to_string() })
        });
        holders.collect()
    }

    /// Whether it has a file open, as far as this user may see.
    pub fn has_open(&self, file: &Path) -> bool {
        fs::canonicalize(file).is_ok_and(|file| open_files(self.id).any(|open| open == file))
    }
}

impl std::fmt::Display for HostProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {})", self.name, self.id)
    }
}

fn open_files(process: u32) -> impl Iterator<Item = PathBuf> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn sockets_are_found_with_their_users_and_processes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let _file = File::create(&path).unwrap();
        let (tcp, udp_socket) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
        let address = tcp.local_addr().unwrap();
        let _connection = std::net::TcpStream::connect(address).unwrap();
        std::os::unix::fs::fchown(&tcp, Some(65534), None).unwrap();
        let all = listening().unwrap();
        let found: Vec<_> = all.into_iter().filter(|socket| socket.takes(address)).collect();
        assert_eq!(
            found.iter().map(|socket| (socket.address, socket.user)).collect::<Vec<_>>(),
            [(address, 65534)]
        );
        let [process] = &HostProcess::with(&found[0])[..] else { panic!("not one process") };
        assert_eq!(process.id, std::process::id());
        assert!(process.has_open(&path) && !process.has_open(dir.path()));
        let address = udp_socket.local_addr().unwrap();
        assert!(udp().unwrap().iter().any(|socket| socket.address == address));
        assert_eq!(HostProcess::with(&LocalSocket { inode: u64::MAX, ..found[0].clone() }), []);
    }

    #[test]
    fn a_table_that_is_missing_or_has_a_strange_line_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let [missing, table] = ["missing", "table"].map(|name| dir.path().join(name));
        let line = |port: &str, state: &str| {
            format!("  9: 00000000:{port} 00000000:0000 {state} 0:0 00:0 0 998 0 41 1")
        };
        let lines = ["sl", &line("01F4", LISTEN), "strange", &line("1194", LISTEN), &line("0001", "01")];
        fs::write(&table, lines.join("\n")).unwrap();
        for tables in [[&missing, &table], [&table, &missing]] {
            let found = read(&tables, |state| state == LISTEN).unwrap();
            let ports: Vec<_> = found.iter().map(|socket| socket.address.port()).collect();
            assert_eq!(ports, [500, 4500]);
        }
        assert!(read(&[&missing, &missing], |_| true).is_err());
    }

    #[test]
    fn a_line_of_the_kernels_tables_is_read() {
        let words = |n: u32| format!("{n:08X}");
        let line = |ip: String| format!("  9: {ip}:2120 {ip}:0000 0A 0:0 00:0 0 998 0 41 1");
        let v4 = words(u32::from_ne_bytes([127, 0, 0, 1]));
        let socket = |address: &str| LocalSocket { address: address.parse().unwrap(), user: 998, inode: 41 };
        assert_eq!(parse(&line(v4)), Some((socket("127.0.0.1:8480"), "0A".to_owned())));
        let v6 =
            [0x2001_0db8_u32, 0, 0, 1].map(|word| words(u32::from_ne_bytes(word.to_be_bytes()))).concat();
        assert_eq!(parse(&line(v6)).unwrap().0, socket("[2001:db8::1]:8480"));
        for wrong in ["", "sl local", "1: 0100007F:0 0:0 0A 0 0 0 x 0 0", "1: é100007F:0 0:0 0A 0 0 0 0 0 0"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_socket_takes_what_is_for_its_address_or_for_any() {
        let takes = |own: &str, wanted: &str| {
            let socket = LocalSocket { address: own.parse().unwrap(), user: 0, inode: 0 };
            (socket.takes(wanted.parse().unwrap()), socket.conflicts(wanted.parse().unwrap()))
        };
        for own in ["127.0.0.1:80", "0.0.0.0:80", "[::]:80", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(takes(own, "127.0.0.1:80"), (true, true), "{own}");
        }
        for own in ["127.0.0.1:81", "127.0.0.2:80", "[::1]:80"] {
            assert_eq!(takes(own, "127.0.0.1:80"), (false, false), "{own}");
        }
        assert_eq!(takes("0.0.0.0:80", "[::1]:80"), (false, false));
        assert_eq!(takes("127.0.0.1:80", "0.0.0.0:80"), (false, true));
    }
}
