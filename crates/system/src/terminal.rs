//! Texts of others that are printed: names, descriptions and tags may be a stranger's.
//!
//! Invariant: what is shown controls no terminal, and turns no text around it: a line reads from left to right as it was written
//! (the directional formatting characters of UAX #9).

use std::borrow::Cow;

/// Shown in place of such a character.
const INSTEAD: char = '\u{fffd}';

/// Whether the character changes the direction of what is around it, separates lines, or has no width.
fn hides(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether the character controls a terminal, or hides what is around it.
pub fn is_unprintable(c: char) -> bool {
    c.is_control() || hides(c)
}

/// A text for one line of a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_unprintable(c) { INSTEAD } else { c }).collect()
}

/// A text of several lines.
pub fn printable_lines(text: &str) -> String {
    text.chars().map(|c| if is_unprintable(c) && c != '\n' && c != '\t' { INSTEAD } else { c }).collect()
}

/// JSON in which such characters of its strings are escaped: it means the same.
pub fn printable_json(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for c in json.chars() {
        match u32::from(c) {
            // Between its values, the only control character is a line feed.
            code if is_unprintable(c) && c != '\n' => printable.push_str(&format!("\\u{code:04x}")),
            _ => printable.push(c),
        }
    }
    printable
}

/// A line of a log, whose own control characters are colours.
pub(crate) fn printable_log(line: &[u8]) -> Cow<'_, [u8]> {
    // The first bytes of the encodings of all that hides. Few lines have one.
    let is_suspicious = |byte: &u8| matches!(byte, 0xd8 | 0xe2 | 0xef);
    if !line.iter().any(is_suspicious) {
        return Cow::Borrowed(line);
    }
    match str::from_utf8(line) {
        Ok(text) if text.contains(hides) => Cow::Owned(text.replace(hides, "\u{fffd}").into_bytes()),
        _ => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every character that turns or hides text, and some that control a terminal.
    const BAD: &str = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{9b}\u{1b}";

    #[test]
    fn what_is_printed_turns_nothing_around_it() {
        for bad in BAD.chars() {
            let text = format!("a{bad}b\u{e9}\u{5d0}");
            assert_eq!(printable(&text), "a\u{fffd}b\u{e9}\u{5d0}", "{bad:?}");
            assert_eq!(printable_lines(&format!("{text}\n\t")), "a\u{fffd}b\u{e9}\u{5d0}\n\t", "{bad:?}");
            assert_eq!(
                printable_json(&format!("[\n\"{bad}\"]")),
                format!("[\n\"\\u{:04x}\"]", u32::from(bad))
            );
            if !bad.is_control() {
                assert_eq!(printable_log(text.as_bytes()), printable(&text).as_bytes(), "{bad:?}");
            }
        }
    }

    #[test]
    fn a_line_of_the_log_keeps_its_colours_and_all_that_is_no_text() {
        let line = "\u{1b}[32m INFO\u{1b}[0m é € שלום\n".as_bytes();
        assert_eq!(printable_log(line), line);
        assert_eq!(printable_log(&[0xe2, 0x80]), &[0xe2, 0x80][..]);
    }
}
