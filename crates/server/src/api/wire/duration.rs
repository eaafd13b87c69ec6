//! Durations in a query: `15m`, `1h30m`, `7d`, and ISO 8601 durations of days and less (`PT1H`, `P1DT12H`).

/// Seconds; `None` if the text is not a duration or does not fit.
pub(in crate::api) fn seconds(text: &str) -> Option<u32> {
    match text.strip_prefix('P') {
        None => parts(text, &[('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)]),
        Some(iso) => {
            let (date, time) = match iso.split_once('T') {
                Some((date, time)) => (date, Some(time)),
                None => (iso, None),
            };
            let days = if date.is_empty() { None } else { Some(parts(date, &[('D', 86_400)])?) };
            let rest = match time {
                Some(time) => Some(parts(time, &[('H', 3600), ('M', 60), ('S', 1)])?),
                None => None,
            };
            days.or(rest)?;
            days.unwrap_or(0).checked_add(rest.unwrap_or(0))
        }
    }
}

/// One or more numbers with units, each unit once and in this order.
fn parts(text: &str, units: &[(char, u32)]) -> Option<u32> {
    let (mut rest, mut units, mut sum) = (text, units.iter(), 0u32);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|&i| i > 0)?;
        let (number, after) = rest.split_at(end);
        let unit = after.chars().next()?;
        let (_, seconds) = units.find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.parse::<u32>().ok()?.checked_mul(*seconds)?)?;
        rest = &after[unit.len_utf8()..];
    }
    Some(sum)
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
