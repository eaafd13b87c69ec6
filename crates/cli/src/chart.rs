//! Charts of characters.

use std::io::{self, Write};

use serde_json::Value;

/// Eighths of a line.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Lines of a chart.
const HEIGHT: usize = 6;
/// Columns of the scale.
const SCALE: usize = 10;

/// Draws samples as columns, the oldest first, scaled to `width`. `unit` follows the numbers of the scale.
pub(crate) fn draw(
    title: &str,
    samples: &[f64],
    unit: &str,
    width: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let columns = columns(samples, width.saturating_sub(SCALE + 1).clamp(10, 120));
    let most = columns.iter().copied().fold(0.0, f64::max);
    writeln!(out, "{title}")?;
    if most <= 0.0 {
        return writeln!(out, "{:>SCALE$} nothing", format!("0{unit}"));
    }
    for line in (0..HEIGHT).rev() {
        let label = match line {
            5 => short(most, unit),
            0 => format!("0{unit}"),
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
pub(crate) fn short(value: f64, unit: &str) -> String {
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

/// A property of all samples.
pub(crate) fn series(metrics: &Value, property: &str) -> Vec<f64> {
    let samples = metrics["samples"].as_array().into_iter().flatten();
    samples.map(|sample| sample[property].as_f64().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_columns_of_eighths() {
        let mut out = Vec::new();
        let samples: Vec<_> = (0..48).map(f64::from).collect();
        draw("bytes in", &samples, "B/s", 80, &mut out).unwrap();
        draw("failures", &[0.0, 0.0], "", 80, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 7.5, 999.0, 1500.0, 2_000_000.0].map(|n| short(n, "B/s"));
        assert_eq!(texts, ["0 B/s", "7.5 B/s", "999 B/s", "1.5 kB/s", "2 MB/s"]);
        assert_eq!(short(12.0, ""), "12");
    }
}
