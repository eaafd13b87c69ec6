//! The table of results: each peer's figures, and whether each aim is met.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use anyhow::Result;

use crate::peers::{DIRECT, HAPROXY, OURS, RATHOLE};

/// The limit of a figure, absolute or relative to a peer's figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    AtLeast(f64, &'static str),
    AtMost(f64, &'static str),
    /// A lower limit in the figure's own unit.
    Least(f64),
    Most(f64),
}

/// The rounds of one measure by peer.
#[derive(Debug)]
struct Row {
    name: String,
    aims: Vec<Aim>,
    rounds: BTreeMap<&'static str, Vec<f64>>,
}

/// All measures, in the order in which they were first taken.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Row>);

impl Report {
    /// Records one round of a measure.
    pub(crate) fn note(&mut self, name: &str, aims: &[Aim], peer: &'static str, value: f64) {
        let at = self.0.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.0.push(Row { name: name.to_owned(), aims: aims.to_vec(), rounds: BTreeMap::new() });
            self.0.len() - 1
        });
        self.0[at].rounds.entry(peer).or_default().push(value);
    }

    /// Prints the table, in Markdown, and returns how many aims were missed.
    pub(crate) fn print(&self) -> Result<usize> {
        let mut out = io::stdout().lock();
        let mut missed = 0;
        writeln!(out, "| measure | {DIRECT} | {HAPROXY} | {RATHOLE}, TLS | {OURS} | aim | |")?;
        writeln!(out, "|---|---|---|---|---|---|---|")?;
        for row in &self.0 {
            let value = |peer| row.median(peer).map_or_else(|| "–".to_owned(), figure);
            let (mut aims, mut verdicts) = (Vec::new(), Vec::new());
            for aim in &row.aims {
                let Some((text, ratio, met)) = row.verdict(*aim) else { continue };
                missed += usize::from(!met);
                aims.push(text);
                verdicts.push(format!("{ratio} {}", if met { "met" } else { "MISSED" }));
            }
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} |",
                row.name,
                value(DIRECT),
                value(HAPROXY),
                value(RATHOLE),
                value(OURS),
                aims.join(", "),
                verdicts.join(", ")
            )?;
        }
        Ok(missed)
    }
}

impl Row {
    fn median(&self, peer: &str) -> Option<f64> {
        let mut values = self.rounds.get(peer)?.clone();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// The aim as text, the ratio that was reached, and whether the aim is met. `None` if the peer was not measured.
    fn verdict(&self, aim: Aim) -> Option<(String, String, bool)> {
        let ours = self.median(OURS)?;
        Some(match aim {
            Aim::AtLeast(factor, peer) => {
                let ratio = ours / self.median(peer)?;
                (format!("≥ {factor} × {peer}"), format!("{ratio:.2}"), ratio >= factor)
            }
            Aim::AtMost(factor, peer) => {
                let ratio = ours / self.median(peer)?;
                (format!("≤ {factor} × {peer}"), format!("{ratio:.2}"), ratio <= factor)
            }
            Aim::Least(least) => (format!("≥ {}", figure(least)), String::new(), ours >= least),
            Aim::Most(most) => (format!("≤ {}", figure(most)), String::new(), ours <= most),
        })
    }
}

fn figure(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
