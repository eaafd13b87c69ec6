//! Durations in a query: `15m`, `1h30m`, `7d`, and ISO 8601 durations of days and less (`PT1H`, `P1DT12H`).

use jiff::{Span, SpanRelativeTo};

/// Seconds; `None` if the text is not a duration or does not fit.
pub(in crate::api) fn seconds(text: &str) -> Option<u32> {
    let units = if text.starts_with('P') { "PTDHMS" } else { "dhms" };
    // `jiff` also reads fractions, signs and other units; `ms` are milliseconds.
    let is_plain = text.chars().all(|c| c.is_ascii_digit() || units.contains(c)) && !text.contains("ms");
    let span: Span = text.parse().ok().filter(|_| is_plain)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    duration.as_secs().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_panics(s in "\\PC{0,12}|P?[0-9]{0,12}[dhmsDTHMSä]{0,3}[0-9]{0,3}[hmsHMS]?") {
            let _ = seconds(&s);
        }

        #[test]
        fn both_notations_agree(d in 0u32..40, h in 0u32..99, m in 0u32..99, s in 0u32..99) {
            let sum = d * 86_400 + h * 3600 + m * 60 + s;
            prop_assert_eq!(seconds(&format!("{d}d{h}h{m}m{s}s")), Some(sum));
            prop_assert_eq!(seconds(&format!("P{d}DT{h}H{m}M{s}S")), Some(sum));
        }
    }

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("15m", Some(900)),
            ("1h", Some(3600)),
            ("1h30m", Some(5400)),
            ("7d", Some(604_800)),
            ("PT1H", Some(3600)),
            ("P7D", Some(604_800)),
            ("PT1H30M", Some(5400)),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for bad in [
            "",
            "h",
            "1",
            "1x",
            "30m1h",
            "1h1h",
            "-1h",
            "1.5h",
            "P",
            "PT",
            "P1DT",
            "P1H",
            "1H",
            "99999999999d",
            "1h ",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
