//! The log of a program, on its standard error: for people with times and colours, for the journal with priorities.

use std::{
    fmt, io,
    io::{IsTerminal as _, Write as _},
    os::linux::fs::MetadataExt as _,
    path::Path,
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{
        FmtContext, FormatEvent, FormatFields, Layer,
        format::{DefaultFields, Format, Full, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

use crate::terminal::{printable_lines, printable_log};

/// The environment variable that has the filter of a program without the setting.
const VARIABLE: &str = "RUST_LOG";

/// The filter of the running log. `None` before [`start`].
static FILTER: Mutex<Option<reload::Handle<EnvFilter, Registry>>> = Mutex::new(None);

/// What is logged: a level, or levels of targets, like `info,access=warn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("must be like debug or info,access=warn: {error}")),
        }
    }
}

impl LogFilter {
    /// Makes this the filter of the running log.
    pub fn apply(&self) {
        let filter = FILTER.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(handle), Ok(new)) = (&*filter, EnvFilter::try_new(&self.0)) {
            // It fails only if the log itself is gone.
            let _ = handle.reload(new);
        }
    }
}

/// Starts the log at the level in `RUST_LOG`, or `info`. It is the journal's if standard error is.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    *FILTER.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
    let journal = is_journal().then(|| layer().with_ansi(false).event_format(JournalFormat::default()));
    let people = journal.is_none().then(|| layer().with_ansi(io::stderr().is_terminal()));
    tracing_subscriber::registry().with(filter).with(journal).with(people).init();
}

/// Events as lines on standard error. Errors of writing are not printed, which would panic: they are of the same output.
fn layer<S>() -> Layer<S, DefaultFields, Format, fn() -> LossyStderr> {
    Layer::default().with_writer(LossyStderr::default as fn() -> _).log_internal_errors(false)
}

/// Writes why the program ends, in one line.
pub fn last_words(text: &str) {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join(" ");
    let priority = if is_journal() { "<3>" } else { "" };
    // Unlike `eprintln`, it does not panic where there is no reader.
    let _ = writeln!(io::stderr(), "{priority}{}", printable_lines(&line));
}

/// Lines of the log that could not be written since the start.
pub fn lost_lines() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// See [`lost_lines`].
static LOST: AtomicU64 = AtomicU64::new(0);

/// Standard error, or another writer. What cannot be written is counted and dropped: a full disk behind the log, or a
/// reader that is gone, stops no service. If a part of a line was written, the next one begins with the end of that line.
#[derive(Debug)]
struct LossyWriter<W> {
    to: W,
    /// The line before was cut. Each event has a writer of its own, so that this is the output's.
    is_cut: &'static AtomicBool,
}

/// Whether the last line on standard error was cut.
static IS_CUT: AtomicBool = AtomicBool::new(false);

type LossyStderr = LossyWriter<io::Stderr>;

impl Default for LossyStderr {
    fn default() -> Self {
        Self { to: io::stderr(), is_cut: &IS_CUT }
    }
}

impl<W: io::Write> LossyWriter<W> {
    /// Returns how much was written.
    fn write_part(&mut self, line: &[u8]) -> usize {
        let mut written = 0;
        while written < line.len() {
            match self.to.write(&line[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        written
    }
}

impl<W: io::Write> io::Write for LossyWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let printable = printable_log(line);
        if self.is_cut.load(Ordering::Relaxed) && self.write_part(b"\n") == 1 {
            self.is_cut.store(false, Ordering::Relaxed);
        }
        // Behind a cut line without an end, this one would be a part of it.
        let written = if self.is_cut.load(Ordering::Relaxed) { 0 } else { self.write_part(&printable) };
        if written < printable.len() {
            LOST.fetch_add(1, Ordering::Relaxed);
            if written > 0 {
                self.is_cut.store(true, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether standard error is the journal.
pub fn is_journal() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_open_as_stderr(&stream))
}

/// Whether standard error is the stream with this device and inode, `DEV:INO` (systemd.exec(5), `JOURNAL_STREAM`).
fn is_open_as_stderr(stream: &str) -> bool {
    let open = Path::new("/proc/self/fd/2").metadata();
    open.is_ok_and(|open| stream == format!("{}:{}", open.st_dev(), open.st_ino()))
}

/// Lines that begin with their priority, as sd-daemon(3) has it. The journal has the time.
struct JournalFormat(Format<Full, ()>);

impl Default for JournalFormat {
    fn default() -> Self {
        Self(Format::default().without_time().with_level(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for JournalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_is_no_error() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let before = lost_lines();
        static CUT: AtomicBool = AtomicBool::new(false);
        LossyWriter { to: full, is_cut: &CUT }.write_all(b"a line\n").unwrap();
        assert!(lost_lines() > before && !CUT.load(Ordering::Relaxed), "nothing of it was written");
    }

    /// A disk with room for some bytes.
    #[derive(Debug, Default)]
    struct Disk {
        has: Vec<u8>,
        room: usize,
    }

    impl io::Write for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.has.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_behind_one_that_was_cut_is_a_line_of_its_own() {
        static CUT: AtomicBool = AtomicBool::new(false);
        let mut disk = Disk { room: 4, ..Disk::default() };
        for (line, room) in [("first\n", 0), ("second\n", 1), ("third\n", 64), ("fourth\n", 0)] {
            LossyWriter { to: &mut disk, is_cut: &CUT }.write_all(line.as_bytes()).unwrap();
            disk.room += room;
        }
        assert_eq!(String::from_utf8(disk.has).unwrap(), "firs\nfourth\n");
    }

    #[test]
    fn a_line_with_the_words_of_others_turns_no_text() {
        static CUT: AtomicBool = AtomicBool::new(false);
        let mut written = LossyWriter { to: Vec::new(), is_cut: &CUT };
        written.write_all("account \u{202e}nimda\u{202c} signed in\n".as_bytes()).unwrap();
        assert_eq!(String::from_utf8(written.to).unwrap(), "account \u{fffd}nimda\u{fffd} signed in\n");
    }

    #[test]
    fn a_wrong_filter_is_refused_with_an_example() {
        assert!("info,access=warn".parse::<LogFilter>().is_ok());
        let error = "info,access=loud".parse::<LogFilter>().unwrap_err();
        assert!(error.starts_with("must be like debug or info,access=warn: "), "{error}");
    }

    #[test]
    fn only_the_stream_that_is_open_is_the_journal() {
        let open = Path::new("/proc/self/fd/2").metadata().unwrap();
        assert!(is_open_as_stderr(&format!("{}:{}", open.st_dev(), open.st_ino())));
        assert!(!is_open_as_stderr(&format!("{}:{}", open.st_dev(), open.st_ino() + 1)));
    }
}
