//! The words of the command line's parser, for those who write no programs.

/// What the parser says of numbers, in words of those who write them.
pub(crate) fn in_plain_words(text: &str) -> String {
    const WORDS: &[(&str, &str)] = &[
        ("invalid digit found in string", "it must be a whole number"),
        ("cannot parse integer from empty string", "it must be a whole number"),
        ("number too large to fit in target type", "the number is too large"),
        ("number too small to fit in target type", "the number is too small"),
        ("invalid float literal", "it must be a number"),
    ];
    let mut text = text.to_owned();
    for (of_the_language, plain) in WORDS {
        text = text.replace(of_the_language, plain);
    }
    // `61 is not in 0..=60`
    let Some((before, range)) = text.split_once(" is not in ") else { return text };
    let end = range.find('\n').unwrap_or(range.len());
    let (range, rest) = range.split_at(end);
    let Some((from, to)) = range.split_once("..=") else { return text };
    match (from, to) {
        ("", to) => format!("{before} is more than {to}{rest}"),
        (from, "") => format!("{before} is less than {from}{rest}"),
        (from, to) => format!("{before} is not from {from} to {to}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::in_plain_words;

    #[test]
    fn numbers_are_refused_in_words_of_those_who_write_them() {
        for (said, plain) in [
            (
                "error: invalid value 'x' for '--drain <N>': invalid digit found in string\n\nMore",
                "error: invalid value 'x' for '--drain <N>': it must be a whole number\n\nMore",
            ),
            (
                "invalid value '61' for '--drain <N>': 61 is not in 0..=60\n\nFor more information",
                "invalid value '61' for '--drain <N>': 61 is not from 0 to 60\n\nFor more information",
            ),
            ("0 is not in 1..=", "0 is less than 1"),
            ("9 is not in ..=8", "9 is more than 8"),
            ("the name is not in the list", "the name is not in the list"),
        ] {
            assert_eq!(in_plain_words(said), plain);
        }
    }
}
