//! Charts of characters: a resource's traffic, each series with its unit, its times and what it adds up to.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde_json::Value;

use crate::{session::text, table::cell};

/// Eighths of a line.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Lines of a chart.
const HEIGHT: usize = 6;
/// Columns of the scale.
const SCALE: usize = 10;
/// Columns of a chart with its scale.
const WIDEST: usize = 80;
/// Seconds, above which a time has its date.
const DAY: f64 = 86_400.0;

/// How the samples of a property are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Bytes, shown by the second.
    Bytes,
    /// Events, shown by the sample.
    Events,
    /// A state, which adds up to nothing.
    State,
}

/// What people call the properties of samples, and how they are counted.
const SERIES: &[(&str, &str, Counted)] = &[
    ("rx", "rx: from the site to the target", Counted::Bytes),
    ("tx", "tx: from the target to the site", Counted::Bytes),
    ("connections", "connections that were opened", Counted::Events),
    ("failures", "connections that were not served", Counted::Events),
    ("active", "open connections, the most at one time", Counted::State),
];

/// Draws one chart for each property of the samples that is a number.
pub(crate) fn all(metrics: &Value, width: usize, out: &mut impl Write) -> io::Result<()> {
    let samples = metrics["samples"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return writeln!(out, "no samples");
    };
    let width = width.min(WIDEST);
    let step = metrics["step"].as_f64().unwrap_or(1.0).max(1.0);
    let has_date = metrics["period"].as_f64().is_some_and(|period| period >= DAY);
    let times = [first, last].map(|sample| time(text(sample, "at"), has_date));
    let properties = first.as_object().into_iter().flatten();
    for (name, _) in properties.filter(|(name, value)| *name != "timestamp" && value.is_number()) {
        let known = SERIES.iter().find(|(property, ..)| property == name);
        let (title, counted) = known.map_or((name.as_str(), Counted::State), |(_, title, it)| (*title, *it));
        let values: Vec<_> = samples.iter().map(|sample| sample[name].as_f64().unwrap_or_default()).collect();
        let total: f64 = values.iter().sum();
        let (values, unit, by, total) = match counted {
            Counted::Bytes => {
                let rates = values.iter().map(|bytes| bytes / step).collect();
                (rates, "B/s", String::new(), format!(", total {}", short(total, "B")))
            }
            Counted::Events => {
                (values, "", format!(" in each {step} s"), format!(", total {}", short(total, "")))
            }
            Counted::State => (values, "", String::new(), String::new()),
        };
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        writeln!(out, "{}{by}", cell(&title.into()))?;
        if most > 0.0 {
            draw(&values, unit, width, out)?;
            axis(&times, values.len().min(places(width)), out)?;
        }
        writeln!(out, "{:SCALE$} min {}, max {}{total}", "", short(least, unit), short(most, unit))?;
        if name == "failures" {
            reasons(samples, out)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The totals of the failures' reasons, the most frequent first.
fn reasons(samples: &[Value], out: &mut impl Write) -> io::Result<()> {
    let mut totals: BTreeMap<&str, f64> = BTreeMap::new();
    for (reason, count) in samples.iter().filter_map(|s| s["failuresByReason"].as_object()).flatten() {
        *totals.entry(reason).or_default() += count.as_f64().unwrap_or_default();
    }
    let mut totals: Vec<_> = totals.into_iter().collect();
    totals.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (reason, count) in totals {
        writeln!(out, "{:SCALE$} {} {}", "", cell(&reason.into()), short(count, ""))?;
    }
    Ok(())
}

/// Of a time in UTC, as the API writes it.
fn time(at: &str, has_date: bool) -> String {
    let from = if has_date { 5 } else { 11 };
    at.get(from..16).map_or_else(String::new, |part| part.replace('T', " "))
}

/// Columns beside the scale.
fn places(width: usize) -> usize {
    width.saturating_sub(SCALE + 1).max(10)
}

/// Draws samples as columns, the oldest first.
fn draw(samples: &[f64], unit: &str, width: usize, out: &mut impl Write) -> io::Result<()> {
    let columns = columns(samples, places(width));
    let most = columns.iter().copied().fold(0.0, f64::max);
    for line in (0..HEIGHT).rev() {
        let label = match line {
            5 => short(most, unit),
            0 => short(0.0, unit),
            _ => String::new(),
        };
        let bars: String = columns
            .iter()
            .map(|value| {
                let eighths = (value / most * (HEIGHT * 8) as f64).ceil() - (line * 8) as f64;
                BARS[eighths.clamp(0.0, 8.0) as usize]
            })
            .collect();
        writeln!(out, "{label:>SCALE$} {}", bars.trim_end())?;
    }
    Ok(())
}

/// The times of the first and the last column, below them.
fn axis([first, last]: &[String; 2], columns: usize, out: &mut impl Write) -> io::Result<()> {
    let last = format!("{last} UTC");
    // Few columns are narrower than the times.
    let gap = columns.saturating_sub(first.len() + last.len()).max(1);
    writeln!(out, "{:SCALE$} {first}{:gap$}{last}", "", "")
}

/// The samples in at most `most` columns, each the mean of its samples.
fn columns(samples: &[f64], most: usize) -> Vec<f64> {
    let count = samples.len().min(most);
    (0..count)
        .map(|n| {
            let part = &samples[n * samples.len() / count..(n + 1) * samples.len() / count];
            part.iter().sum::<f64>() / part.len().max(1) as f64
        })
        .collect()
}

/// A number with three digits and a prefix.
fn short(value: f64, unit: &str) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P"];
    let mut rest = value;
    let mut n = 0;
    while rest >= 1000.0 && n + 1 < prefixes.len() {
        rest /= 1000.0;
        n += 1;
    }
    let digits = if rest >= 100.0 || rest.fract() == 0.0 { 0 } else { 1 };
    let space = if unit.is_empty() && prefixes[n].is_empty() { "" } else { " " };
    format!("{rest:.digits$}{space}{}{unit}", prefixes[n])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drawn(samples: &[Value], step: u32, period: u32) -> String {
        let mut out = Vec::new();
        all(&json!({"step": step, "period": period, "samples": samples}), usize::MAX, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn samples_are_columns_of_eighths_with_units_and_times() {
        let sample = |n: u32| {
            json!({
                "at": format!("2026-01-01T{:02}:{:02}:00Z", 9 + n / 60, n % 60), "timestamp": n, "rx": n * 60_000,
                "tx": 0, "connections": n % 7, "failures": 3 * u32::from(n == 30), "failuresByReason": if n == 30 { json!({"no-agent": 1, "dial-timeout": 2}) } else { json!({}) }, "active": 3 + n % 2,
            })
        };
        let samples: Vec<_> = (0..120).map(sample).collect();
        let text = drawn(&samples, 60, 7200);
        assert!(text.lines().all(|line| line.chars().count() <= WIDEST), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn few_samples_have_their_times_and_a_day_has_dates() {
        let sample = |day: u32| json!({"at": format!("2026-01-{day:02}T00:00:00Z"), "timestamp": 1, "rx": 86_400, "new": 2});
        insta::assert_snapshot!(drawn(&[sample(1), sample(2)], 86_400, 172_800));
        assert_eq!(drawn(&[], 60, 60), "no samples\n");
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 7.5, 999.0, 1500.0, 2_000_000.0].map(|n| short(n, "B/s"));
        assert_eq!(texts, ["0 B/s", "7.5 B/s", "999 B/s", "1.5 kB/s", "2 MB/s"]);
        assert_eq!(short(12.0, ""), "12");
    }
}
