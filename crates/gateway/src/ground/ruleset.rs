//! Whether the packet rules of a namespace were changed: the kernel counts transactions.
//!
//! The question takes microseconds; listing the rules takes milliseconds, for each of hundreds of tunnels, and nearly
//! always nothing has changed.

use std::io::{self, Read as _};

use socket2::Socket;

use super::{
    NetworkError,
    nfnetlink::{self, find, message},
};

// Numbers of the kernel's nf_tables.h.
const GET_GENERATION: u16 = 10 << 8 | 16;
const NEW_GENERATION: u16 = 10 << 8 | 15;
const GENERATION_ID: u16 = 1;
const REQUEST: u16 = 1;

/// Grows with each transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RulesetGeneration(pub(super) u32);

impl RulesetGeneration {
    /// Whether exactly one transaction lies between: the caller's own.
    pub(crate) fn follows(self, before: Self) -> bool {
        before.0.wrapping_add(1) == self.0
    }
}

/// The generation of the calling thread's namespace.
pub(crate) fn generation() -> Result<RulesetGeneration, NetworkError> {
    let read = || generation_by(&socket()?);
    read().map_err(NetworkError::io("look whether the host's packet rules were changed"))
}

/// A socket of the calling thread's namespace, for [`generation_by`]. It never waits: the kernel answers before the
/// sender continues.
pub(super) fn socket() -> io::Result<Socket> {
    let socket = nfnetlink::socket()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The generation of the socket's namespace.
pub(super) fn generation_by(mut socket: &Socket) -> io::Result<RulesetGeneration> {
    let mut answer = [0u8; 256];
    // A leftover answer would be taken for this one.
    while socket.read(&mut answer).is_ok() {}
    socket.send(&message(GET_GENERATION, REQUEST, &[]))?;
    let length = socket.read(&mut answer)?;
    read(answer.get(..length).unwrap_or_default())
        .ok_or_else(|| io::Error::other("the kernel does not say which generation its rules are"))
}

fn read(answer: &[u8]) -> Option<RulesetGeneration> {
    if nfnetlink::u16_at(answer, 4)? != NEW_GENERATION {
        return None;
    }
    let id = find(answer.get(nfnetlink::HEADER..)?, GENERATION_ID)?;
    Some(RulesetGeneration(u32::from_be_bytes(*id.first_chunk()?)))
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;

    /// The generation of the kernel's rules, and flows and counters that it lists.
    pub fn netlink(answer: &[u8]) {
        if let Some(RulesetGeneration(id)) = read(answer) {
            let attribute = nfnetlink::attribute(GENERATION_ID, &id.to_be_bytes());
            assert_eq!(read(&message(NEW_GENERATION, 0, &attribute)), Some(RulesetGeneration(id)));
        }
        for kind in 0..4 {
            let Some(value) = find(answer, kind) else { continue };
            assert_eq!(find(&nfnetlink::attribute(kind, value), kind), Some(value));
        }
        super::super::unserved::fuzz::elements_of(answer);
        super::super::conntrack::fuzz::flow(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::{Namespace, nft};
    use proptest::prelude::*;

    #[test]
    fn a_generation_is_read() {
        let attribute = nfnetlink::attribute(GENERATION_ID, &7u32.to_be_bytes());
        assert_eq!(read(&message(NEW_GENERATION, 0, &attribute)), Some(RulesetGeneration(7)));
        assert_eq!(read(&message(GET_GENERATION, 0, &attribute)), None);
        assert!(RulesetGeneration(0).follows(RulesetGeneration(u32::MAX)));
    }

    #[tokio::test]
    async fn an_unread_answer_is_not_taken_for_the_next_one() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: namespaces need root");
            return;
        }
        let name = format!("wgruleset-{}", std::process::id());
        let namespace = Namespace::ensure(&name).await.unwrap();
        let socket = namespace.run(socket).unwrap();
        let before = generation_by(&socket).unwrap();
        socket.send(&message(GET_GENERATION, REQUEST, &[])).unwrap();
        nft::apply(Some(&namespace), "table ip x {}\n".to_owned()).await.unwrap();
        assert!(generation_by(&socket).unwrap().follows(before));
        assert_eq!((&socket).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        Namespace::remove(&name).await.unwrap();
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            read(&bytes);
        }
    }
}
