//! The newest generation that the agent has seen of each share, in the newest era that it has seen. What is older is refused,
//! also after a restart.
//!
//! As text: a line `era N`, and a line `SHARE GENERATION` for each change, of which the last of a share counts. Changes are
//! appended, and the text is written whole when most of it is out of date.
//!
//! Invariant: era and generations never decrease, but that those of an older era are forgotten with it.

use anyhow::{Context as _, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};
use wicketgate_model::{Era, Generation, OLDER_ASSIGNMENT, ShareId};

/// Shares whose newest generation is kept. Above it, those of the oldest shares are dropped; ids are in the order of
/// creation.
const MOST: usize = 100_000;
/// Lines that are out of date are written over once they are more than the others, and these.
const STALE: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Generations {
    era: Era,
    newest: BTreeMap<ShareId, Generation>,
    /// Shares whose generation is not in the file.
    unwritten: BTreeSet<ShareId>,
    /// Of the file, besides the first.
    lines: usize,
    /// The file is to be written whole.
    is_stale: bool,
}

/// What to do to the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Append(String),
    Replace(String),
}

/// Why an assignment is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Older {
    #[error(
        "{words} generation {0}, seen before: if the server's database was restored, run `wicketgate restore --in-place` there",
        words = OLDER_ASSIGNMENT
    )]
    Generation(Generation),
    #[error(
        "{words} a restore of the server's database that this agent knows of (era {0}): stop the server and run \
         `wicketgate restore --in-place` there, if it is the one that goes on",
        words = OLDER_ASSIGNMENT
    )]
    Era(Era),
}

impl Generations {
    /// Without a file: `newest` is what an earlier version has kept in another.
    pub(crate) fn without_file(newest: BTreeMap<ShareId, Generation>) -> Self {
        Self { is_stale: true, newest, ..Self::default() }
    }

    /// The content of the file. Its last line may be cut: the host crashed while it was appended.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.split_inclusive('\n');
        let era = lines.next().and_then(|line| line.strip_prefix("era ")?.strip_suffix('\n')?.parse().ok());
        let mut read =
            Self { era: Era::new(era.context("its first line is not `era N`")?), ..Self::default() };
        for line in lines {
            let Some(line) = line.strip_suffix('\n') else {
                read.is_stale = true;
                break;
            };
            let (share, generation) = line.split_once(' ').context("a line has not two words")?;
            let (share, generation) = (share.parse()?, Generation::new(generation.parse()?));
            ensure!(read.newest.get(&share) <= Some(&generation), "the generation of {share} decreases");
            read.newest.insert(share, generation);
            read.lines += 1;
        }
        Ok(read)
    }

    /// Takes in the generation of an assignment that the authority has signed. Returns whether something is to be written.
    pub(crate) fn admit(&mut self, era: Era, share: ShareId, generation: Generation) -> Result<bool, Older> {
        if era < self.era {
            return Err(Older::Era(self.era));
        }
        if era > self.era {
            *self = Self { era, is_stale: true, ..Self::default() };
        }
        match self.newest.get(&share) {
            Some(newest) if generation < *newest => return Err(Older::Generation(*newest)),
            Some(newest) if generation == *newest => return Ok(self.is_stale),
            _ => {}
        }
        self.newest.insert(share, generation);
        self.unwritten.insert(share);
        while self.newest.len() > MOST {
            self.newest.pop_first();
        }
        Ok(true)
    }

    pub(crate) fn era(&self) -> Era {
        self.era
    }

    /// What is not in the file yet. It counts as written, unless [`failed`](Self::failed) is called.
    pub(crate) fn take_change(&mut self) -> Option<Change> {
        if !self.is_stale && self.unwritten.is_empty() {
            return None;
        }
        let unwritten = std::mem::take(&mut self.unwritten);
        self.lines += unwritten.len();
        if self.is_stale || self.lines > 2 * self.newest.len() + STALE {
            (self.is_stale, self.lines) = (false, self.newest.len());
            return Some(Change::Replace(format!("era {}\n{}", self.era, lines(&self.newest))));
        }
        // One that was dropped meanwhile is not written.
        let kept = unwritten.iter().filter_map(|share| self.newest.get_key_value(share));
        Some(Change::Append(lines(kept)))
    }

    /// A change was not written, or in part.
    pub(crate) fn failed(&mut self) {
        self.is_stale = true;
    }
}

fn lines<'a>(of: impl IntoIterator<Item = (&'a ShareId, &'a Generation)>) -> String {
    of.into_iter().fold(String::new(), |mut text, (share, generation)| {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{share} {generation}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn share(n: u8) -> ShareId {
        ShareId::new(Uuid::from_u128(n.into()))
    }

    /// A file as a disk keeps it.
    #[derive(Default)]
    struct Disk(String);

    impl Disk {
        fn carry_out(&mut self, change: Option<Change>) {
            match change {
                Some(Change::Append(text)) => self.0 += &text,
                Some(Change::Replace(text)) => self.0 = text,
                None => {}
            }
        }
    }

    proptest! {
        #[test]
        fn the_file_has_what_was_admitted_wherever_a_write_was_cut(
            steps in prop::collection::vec((0_u64..3, 0_u8..6, 0_u64..9, prop::option::weighted(0.2, 0_usize..40)), 1..120),
        ) {
            let (mut seen, mut disk) = (Generations::without_file(BTreeMap::new()), Disk::default());
            let mut model = (Era::FIRST, BTreeMap::new());
            for (era, n, generation, cut) in steps {
                let (era, generation) = (Era::new(era), Generation::new(generation));
                let is_old = era < model.0 || (era == model.0 && model.1.get(&share(n)) > Some(&generation));
                prop_assert_eq!(seen.admit(era, share(n), generation).is_err(), is_old);
                if !is_old {
                    if era > model.0 {
                        model = (era, BTreeMap::new());
                    }
                    model.1.insert(share(n), generation);
                }
                match (seen.take_change(), cut) {
                    // The host crashes while it appends: what was there remains, and a part of the rest.
                    (Some(Change::Append(text)), Some(cut)) => {
                        disk.0 += &text[..cut.min(text.len())];
                        seen = Generations::parse(&disk.0).unwrap();
                        prop_assert!(seen.era == model.0);
                        model.1 = seen.newest.clone();
                    }
                    // The disk was full, and the agent goes on.
                    (Some(Change::Replace(_)), Some(_)) => seen.failed(),
                    (change, _) => disk.carry_out(change),
                }
            }
            disk.carry_out(seen.take_change());
            if !disk.0.is_empty() {
                let read = Generations::parse(&disk.0).unwrap();
                prop_assert_eq!((read.era, read.newest), model);
            }
        }
    }

    #[test]
    fn a_change_costs_its_own_line_and_the_file_stays_small() {
        let mut seen = Generations::without_file(BTreeMap::new());
        let mut disk = Disk::default();
        let (mut appended, mut replaced) = (0, 0);
        for n in 0..5_000_u64 {
            seen.admit(Era::FIRST, share(u8::try_from(n % 10).unwrap()), Generation::new(1 + n)).unwrap();
            let change = seen.take_change();
            match &change {
                Some(Change::Append(text)) => appended += text.lines().count(),
                Some(Change::Replace(_)) => replaced += 1,
                None => {}
            }
            disk.carry_out(change);
            assert!(n % 100 > 0 || disk.0.lines().count() <= STALE + 30);
        }
        assert!(appended + replaced == 5_000 && replaced < 8, "{appended} {replaced}");
        assert_eq!(seen.take_change(), None);
    }

    #[test]
    fn a_damaged_file_is_refused() {
        for text in ["", "era", "era x\n", "shr 1\n", "era 0\nshr-1 2\n", "era 0\nx\n"] {
            assert!(Generations::parse(text).is_err(), "{text}");
        }
        let one = share(1);
        assert!(Generations::parse(&format!("era 0\n{one} 2\n{one} 1\n")).is_err());
        let cut = Generations::parse(&format!("era 7\n{one} 2\n{one} 1")).unwrap();
        assert_eq!((cut.era.get(), cut.newest[&one].get(), cut.is_stale), (7, 2, true));
    }
}
