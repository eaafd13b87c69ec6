//! What a command prints, without what differs from run to run: for snapshots.

/// Replaces ids, times, latencies, and these texts by names.
pub(crate) fn redacted(text: &str, known: &[(&str, &str)]) -> String {
    let text = known.iter().fold(text.replace('\r', ""), |text, (from, to)| text.replace(from, to));
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let words = line.split_inclusive([' ', '\t', '"', ',', '=', '/', '(', ')', '{']).map(|part| {
            let end = part.find([' ', '\t', '"', ',', '=', '/', '(', ')', '{']).unwrap_or(part.len());
            let (word, rest) = part.split_at(end);
            format!("{}{rest}", name_of(word).unwrap_or_else(|| word.to_owned()))
        });
        lines.push(without_latency(&words.collect::<String>()).trim_end().to_owned());
    }
    lines.join("\n")
}

fn name_of(word: &str) -> Option<String> {
    let bare = word.trim_end_matches(['.', ':', ';']);
    let rest = &word[bare.len()..];
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some((prefix, hex)) = bare.split_once('-')
        && prefix.len() == 3
        && hex.len() == 32
        && is_hex(hex)
    {
        return Some(format!("{prefix}-ID{rest}"));
    }
    if bare.len() == 36 && bare.bytes().filter(|b| *b == b'-').count() == 4 && is_hex(&bare.replace('-', ""))
    {
        return Some(format!("UUID{rest}"));
    }
    let is_time = bare.len() >= 20 && bare.starts_with("20") && bare.contains('T') && bare.ends_with('Z');
    is_time.then(|| format!("TIME{rest}"))
}

/// `   0.4 ms` as `N ms`.
fn without_latency(line: &str) -> String {
    let Some(at) = line.find(" ms") else { return line.to_owned() };
    let number = line[..at].trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if number.len() == at {
        return line.to_owned();
    }
    format!("{} N{}", number.trim_end(), without_latency(&line[at..]))
}
