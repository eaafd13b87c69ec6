//! Makes responses comparable: numbers ids in the order of their appearance and masks times.

use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Redact {
    ids: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, usize>,
}

const PREFIXES: [&str; 11] =
    ["acc-", "lnk-", "shr-", "tnl-", "env-", "agt-", "exe-", "enr-", "gwy-", "gwj-", ""];

impl Redact {
    pub(crate) fn value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(values) => values.iter_mut().for_each(|v| self.value(v)),
            Value::Object(object) => {
                for (name, value) in object {
                    match name.as_str() {
                        "requestId" => *value = "[request]".into(),
                        "timestamp" => *value = "[time]".into(),
                        "enrollmentCode" | "joinToken" => *value = "[code]".into(),
                        "clientSecret" | "access_token" | "token" | "url" => *value = "[secret]".into(),
                        _ => self.value(value),
                    }
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) -> String {
        if text.parse::<Timestamp>().is_ok() {
            return "[time]".to_owned();
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let mut out = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            out.push_str(&self.word(word));
            let other = after.find(is_word).unwrap_or(after.len());
            out.push_str(&after[..other]);
            rest = &after[other..];
        }
        out
    }

    fn word(&mut self, word: &str) -> String {
        let is_id = |prefix: &str, rest: &str| {
            let hex = rest.bytes().filter(u8::is_ascii_hexdigit).count();
            if prefix.is_empty() { rest.len() == 36 && hex == 32 } else { rest.len() == 32 && hex == 32 }
        };
        let prefix = PREFIXES.into_iter().find(|p| word.strip_prefix(p).is_some_and(|rest| is_id(p, rest)));
        let Some(prefix) = prefix else { return word.to_owned() };
        let count = self.counts.entry(prefix).or_default();
        let shown = self.ids.entry(word.to_owned()).or_insert_with(|| {
            *count += 1;
            format!("[{}{count}]", if prefix.is_empty() { "frontdoor-" } else { prefix })
        });
        shown.clone()
    }
}
