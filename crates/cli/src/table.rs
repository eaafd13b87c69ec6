//! Tables that are printed while their rows arrive: the first rows decide the widths.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use wicketgate_system::terminal::printable;

use crate::{kind::Column, screen::Screen};

/// Rows that decide how wide the columns are.
const DECIDING: usize = 100;
const GAP: usize = 2;

/// A table in the making.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    columns: Vec<&'static Column>,
    /// Rows that wait until the widths are decided.
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    screen: &'a Screen,
}

impl<'a> Table<'a> {
    pub(crate) fn new(columns: Vec<&'static Column>, screen: &'a Screen) -> Self {
        Self { columns, waiting: Vec::new(), widths: None, screen }
    }

    pub(crate) fn row(&mut self, resource: &Value, out: &mut impl Write) -> io::Result<()> {
        let said = |c: &Column| resource.pointer(c.pointer).map(cell).filter(|cell| !cell.is_empty());
        let or = |c: &Column| cell(&(c.or)(resource).into());
        let cells = self.columns.iter().map(|c| said(c).unwrap_or_else(|| or(c)));
        let cells: Vec<_> = cells.collect();
        if !self.screen.is_terminal {
            return writeln!(out, "{}", cells.join("\t"));
        }
        match &self.widths {
            Some(widths) => self.line(&cells, widths, out),
            None => {
                self.waiting.push(cells);
                if self.waiting.len() == DECIDING { self.decide(out) } else { Ok(()) }
            }
        }
    }

    pub(crate) fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.widths.is_none() && !self.waiting.is_empty() { self.decide(out) } else { Ok(()) }
    }

    /// Prints the headings, and the rows that wait.
    fn decide(&mut self, out: &mut impl Write) -> io::Result<()> {
        let titles: Vec<_> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let rows = || self.waiting.iter().chain([&titles]);
        let longest = |n: usize| rows().map(|row| row[n].chars().count()).max().unwrap_or_default();
        let widths: Vec<_> =
            self.columns.iter().enumerate().map(|(n, column)| longest(n).min(column.widest)).collect();
        let waiting = std::mem::take(&mut self.waiting);
        for row in [titles].iter().chain(&waiting) {
            self.line(row, &widths, out)?;
        }
        out.flush()?;
        self.widths = Some(widths);
        Ok(())
    }

    fn line(&self, cells: &[String], widths: &[usize], out: &mut impl Write) -> io::Result<()> {
        let mut left = self.screen.width;
        let last = cells.iter().rposition(|cell| !cell.is_empty()).unwrap_or_default();
        for (n, (cell, width)) in cells.iter().zip(widths).enumerate().take(last + 1) {
            // The last cell may be as long as the terminal is wide. A later row may have a longer cell than those that decided.
            let most = if n + 1 == cells.len() { left } else { self.columns[n].widest.max(*width) };
            let shown = shortened(cell, most.min(left));
            let fill = if n == last { 0 } else { width.saturating_sub(shown.chars().count()) + GAP };
            let style = if self.screen.has_colours { style(cell) } else { Style::new() };
            write!(out, "{style}{shown}{style:#}{:fill$}", "")?;
            left = left.saturating_sub(width + GAP);
        }
        writeln!(out)
    }
}

/// The text, or its beginning and an ellipsis.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    if most > 0 {
        short.push('…');
    }
    short
}

/// States have colours; all else is plain.
pub(crate) fn style(word: &str) -> Style {
    let colour = match word {
        "DEPLOYED" | "UP" | "CONNECTED" | "ACTIVE" | "SUCCESS" | "OK" | "PASS" => AnsiColor::Green,
        "ERROR" | "DOWN" | "OFFLINE" | "FAILED" | "FAIL" => AnsiColor::Red,
        "NEW" | "DELETING" | "CONNECTING" | "IDLE" | "RUNNING" | "UNKNOWN" => AnsiColor::Yellow,
        _ => return Style::new(),
    };
    Style::new().fg_color(Some(colour.into()))
}

/// A time of the API, in seconds: people need no more. Other texts are as they are.
fn in_seconds(text: &str) -> Option<String> {
    let (seconds, fraction) = text.strip_suffix('Z')?.split_once('.')?;
    let is_time = seconds.len() == "2026-01-31T23:59:59".len()
        && seconds.bytes().enumerate().all(|(n, b)| match n {
            4 | 7 => b == b'-',
            10 => b == b'T',
            13 | 16 => b == b':',
            _ => b.is_ascii_digit(),
        });
    (is_time && fraction.bytes().all(|b| b.is_ascii_digit())).then(|| format!("{seconds}Z"))
}

/// A value in one line. Characters that could drive the terminal, or turn the text of the line, are shown as U+FFFD.
pub(crate) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => in_seconds(text).unwrap_or_else(|| text.clone()),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(all) => {
            all.iter().map(|(name, value)| format!("{name}={}", cell(value))).collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => number.to_string(),
    };
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{EXECUTION, SHARE, TUNNEL};
    use serde_json::json;

    fn shown(rows: &[Value], is_terminal: bool, width: usize) -> String {
        let screen = Screen { is_terminal, has_colours: false, width };
        let mut table = Table::new(SHARE.columns.iter().filter(|c| !c.is_wide).collect(), &screen);
        let mut out = Vec::new();
        for row in rows {
            table.row(row, &mut out).unwrap();
        }
        table.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn shares() -> [Value; 2] {
        [
            json!({"name": "database", "status": "DEPLOYED", "ready": true, "ingressPort": 9000, "target": "10.20.0.20:5432"}),
            json!({"name": "web", "status": "ERROR", "ready": false, "ingressPort": 443, "target": "web.example:8443",
                "statusDetail": {"message": "no agent of the environment is connected"}}),
        ]
    }

    #[test]
    fn a_terminal_gets_columns_and_a_pipe_gets_tabs() {
        insta::assert_snapshot!(shown(&shares(), true, 200));
        insta::assert_snapshot!(shown(&shares(), true, 60));
        insta::assert_snapshot!(shown(&shares(), false, usize::MAX));
    }

    #[test]
    fn the_words_of_others_turn_no_line() {
        let [mut share, _] = shares();
        share["name"] = json!("a\u{202e}b\u{2066}\u{61c}\u{1b}[2J");
        let line = shown(&[share], false, usize::MAX);
        assert!(line.starts_with("a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}[2J\t"), "{line:?}");
    }

    #[test]
    fn a_tunnel_that_is_down_without_an_error_says_what_that_means() {
        let screen = Screen { is_terminal: false, has_colours: false, width: usize::MAX };
        let why = |ready: bool, connection: Value| {
            let mut table = Table::new(TUNNEL.columns.iter().filter(|c| c.title == "WHY").collect(), &screen);
            let mut out = Vec::new();
            let tunnel = json!({"peerPublicIp": "203.0.113.2", "ready": ready, "connection": connection});
            table.row(&tunnel, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(why(false, json!({"state": "DOWN"})).starts_with("nothing arrives from 203.0.113.2: "));
        let error = json!({"state": "DOWN", "lastError": {"message": "the keys differ"}});
        assert_eq!(why(false, error), "the keys differ\n");
        assert_eq!(why(true, json!({"state": "UP"})), "\n");
        // Without IPsec, a tunnel is ready and not connected.
        assert_eq!(why(true, json!({"state": "DOWN"})), "\n");
    }

    #[test]
    fn an_execution_says_why_it_failed_within_120_columns() {
        let screen = Screen { is_terminal: true, has_colours: false, width: 120 };
        let columns = || EXECUTION.columns.iter().filter(|c| !c.is_wide).collect();
        let (mut table, mut out) = (Table::new(columns(), &screen), Vec::new());
        let id = |prefix: &str| format!("{prefix}-{}", "0".repeat(32));
        let execution = json!({"createdAt": "2026-11-29T17:10:40.123456Z", "action": "CLOSE_CONNECTIONS", "status": "SUCCESS",
            "resourceId": id("shr"), "resource": format!("share {}", "a".repeat(63)), "actor": id("acc"), "message": "12 were reset"});
        table.row(&execution, &mut out).unwrap();
        table.end(&mut out).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert!(shown.lines().all(|line| line.chars().count() <= 120), "{shown}");
        assert!(shown.contains("share aaaa") && shown.contains("…  SUCCESS  12 were"), "{shown}");
    }

    #[test]
    fn a_long_list_is_printed_while_it_arrives() {
        let rows: Vec<_> = (0..250).map(|n| json!({"name": format!("share-{n}")})).collect();
        let text = shown(&rows, true, 80);
        assert_eq!(text.lines().count(), 251);
        assert!(text.ends_with("share-249\n"));
    }

    #[test]
    fn a_time_is_shown_in_seconds() {
        assert_eq!(cell(&json!("2026-11-29T17:10:40.123456789Z")), "2026-11-29T17:10:40Z");
        for other in ["2026-11-29T17:10:40Z", "a.Z", "10.0.0.1Z", "2026-11-29T17:10:40.12a4Z", "1.2.3"] {
            assert_eq!(cell(&json!(other)), other);
        }
    }

    #[test]
    fn no_text_of_the_server_drives_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[31m\nb")), "a\u{fffd}[31m\u{fffd}b");
    }
}
