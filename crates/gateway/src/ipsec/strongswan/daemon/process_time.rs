//! What a process does with the processor, as the kernel shows it: it tells a daemon that hangs from one that waits for its
//! turn on a busy host, or for its disk.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

/// A process that gets less than this part of a processor, and has a thread that wants one or waits in the kernel, waits. So does one whose
/// threads waited for more than this part of the time, and longer than they ran.
const LITTLE: u32 = 10;

/// The state of a process at a time, over all its threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessTime {
    at: Instant,
    /// By a signal or a debugger.
    is_stopped: bool,
    /// A thread runs, would if it had a processor, or waits in the kernel for its pages or a disk.
    is_ready: bool,
    /// Time on a processor, and in its queue until it was given one.
    ran: Duration,
    waited: Duration,
}

impl ProcessTime {
    /// # Errors
    /// The process has ended, or the kernel counts nothing.
    pub(super) fn read(pid: i32) -> io::Result<Self> {
        Self::of_threads(Path::new(&format!("/proc/{pid}/task")))
    }

    fn of_threads(dir: &Path) -> io::Result<Self> {
        let mut time = Self {
            at: Instant::now(),
            is_stopped: false,
            is_ready: false,
            ran: Duration::ZERO,
            waited: Duration::ZERO,
        };
        let mut is_counted = false;
        for task in fs::read_dir(dir)? {
            // A thread may end meanwhile.
            let Some((state, [ran, waited])) = task.ok().and_then(|task| thread(&task.path())) else {
                continue;
            };
            is_counted = true;
            time.is_stopped |= state == 'T' || state == 't';
            time.is_ready |= state == 'R' || state == 'D';
            time.ran += ran;
            time.waited += waited;
        }
        if is_counted { Ok(time) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// The time since `before` in which the process could have worked and did not, or worked without a result: all of it,
    /// or none if it waited for the processor or a disk.
    pub(super) fn idle_since(&self, before: &Self) -> Duration {
        let elapsed = self.at.duration_since(before.at);
        let ran = self.ran.saturating_sub(before.ran);
        let waited = self.waited.saturating_sub(before.waited);
        let little = elapsed / LITTLE;
        let is_starved = (self.is_ready && ran < little) || (waited > little && waited > ran);
        if is_starved && !self.is_stopped { Duration::ZERO } else { elapsed }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }
}

/// State, time on a processor and time in its queue: proc_pid_stat(5), and the kernel's `sched-stats.rst` in nanoseconds.
fn thread(dir: &Path) -> Option<(char, [Duration; 2])> {
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    // The name before the state may contain anything.
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    let times = fs::read_to_string(dir.join("schedstat")).ok()?;
    let mut times = times.split_whitespace().map(|time| time.parse().map(Duration::from_nanos));
    Some((state, [times.next()?.ok()?, times.next()?.ok()?]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal, kill_process};
    use std::process::{Child, Command, Stdio};

    const HALF: Duration = Duration::from_millis(500);

    /// A process that is killed with this value.
    struct Running(Child);

    impl Running {
        fn new(program: &str, arguments: &[&str]) -> Self {
            Self(Command::new(program).args(arguments).stdout(Stdio::null()).spawn().unwrap())
        }

        fn pid(&self) -> i32 {
            self.0.id().try_into().unwrap()
        }

        /// How long it was idle, in each of four half seconds.
        fn idle(&self) -> [Duration; 4] {
            [(); 4].map(|()| {
                let before = ProcessTime::read(self.pid()).unwrap();
                std::thread::sleep(HALF);
                ProcessTime::read(self.pid()).unwrap().idle_since(&before)
            })
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn soon(is: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_process_that_sleeps_or_is_stopped_is_idle_and_one_that_waits_for_the_processor_is_not() {
        let asleep = Running::new("sleep", &["60"]);
        assert!(asleep.idle().iter().all(|idle| *idle >= HALF));
        let stopped = Running::new("yes", &[]);
        kill_process(Pid::from_raw(stopped.pid()).unwrap(), Signal::STOP).unwrap();
        soon(|| ProcessTime::read(stopped.pid()).unwrap().is_stopped());
        assert!(stopped.idle().iter().all(|idle| *idle >= HALF));
        assert!(ProcessTime::read(stopped.pid()).unwrap().is_stopped());
        // Both want the same processor at all times; the second gets what the first leaves.
        let cpus = fs::read_to_string("/proc/self/status").unwrap();
        let cpus = cpus.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
        let cpu = cpus.split(['-', ',']).next().unwrap();
        let _busy = Running::new("taskset", &["-c", cpu, "yes"]);
        let starved = Running::new("taskset", &["-c", cpu, "chrt", "-i", "0", "yes"]);
        // The others set its processor and class, and replace themselves.
        soon(|| fs::read_to_string(format!("/proc/{}/comm", starved.pid())).unwrap() == "yes\n");
        assert_eq!(starved.idle(), [Duration::ZERO; 4]);
        assert!(ProcessTime::read(i32::MAX).is_err());
    }

    #[test]
    fn a_process_that_waits_for_its_pages_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        let thread = dir.path().join("7");
        fs::create_dir(&thread).unwrap();
        fs::write(thread.join("schedstat"), "5000000 1000 3\n").unwrap();
        let idle = |state: char| {
            fs::write(thread.join("stat"), format!("7 (char) on) {state} 1 7 7 0\n")).unwrap();
            let before = ProcessTime::of_threads(dir.path()).unwrap();
            ProcessTime { at: before.at + HALF, ..before }.idle_since(&before)
        };
        assert_eq!(['S', 'T', 'D', 'R'].map(idle), [HALF, HALF, Duration::ZERO, Duration::ZERO]);
    }
}
