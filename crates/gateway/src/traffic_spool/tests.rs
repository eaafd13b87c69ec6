//! What is in which report.

use super::*;
use jiff::ToSpan as _;
use proptest::{collection::vec, prelude::*};
use wicketgate_model::FailureReason;

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn delta(share: u8, rx: u64) -> TrafficDelta {
    let share = ShareId::new(Uuid::from_u128(share.into()));
    let failures = [(FailureReason::NoAgent, rx)].into();
    TrafficDelta { rx, failures, active: rx, ..TrafficDelta::new(share, TunnelId::new(Uuid::nil())) }
}

fn received(report: &SpooledTraffic) -> u64 {
    report.deltas.iter().map(|delta| delta.rx).sum()
}

#[test]
fn what_waits_is_summed_up_for_each_ten_seconds_and_has_a_bound() {
    let spool = TrafficSpool::default();
    // A report is under way for an hour.
    spool.add(vec![delta(1, 1)], start());
    let first = spool.next().unwrap();
    assert_eq!((first.number, received(&first)), (1, 1));
    for second in 0..3600_i64 {
        spool.add(vec![delta(1, 1), delta(2, 2)], start() + second.seconds());
        assert_eq!(spool.next(), None);
    }
    let (mut last, mut sum) = (1, 0);
    spool.recorded(spool.id, last);
    while let Some(report) = spool.next() {
        assert_eq!((report.number, report.deltas.len()), (last + 1, 2));
        let step = i64::try_from(last - 1).unwrap() * STEP;
        assert_eq!(report.at, start() + step.seconds());
        last = report.number;
        sum += received(&report);
        assert_eq!(report.deltas[1].active, 2);
        assert_eq!(report.deltas[1].failed(), report.deltas[1].rx);
        spool.recorded(spool.id, last);
    }
    assert_eq!((usize::try_from(last).unwrap(), sum), (STEPS + 1, 3 * 3600));
}

#[test]
fn very_many_shares_wait_in_one_step() {
    let spool = TrafficSpool::default();
    let all = || {
        (0..u32::try_from(MOST).unwrap()).map(|n| {
            let share = ShareId::new(Uuid::from_u128(n.into()));
            TrafficDelta { rx: 1, ..TrafficDelta::new(share, TunnelId::new(Uuid::nil())) }
        })
    };
    for second in [0, 10, 20] {
        spool.add(all().collect(), start() + second.seconds());
    }
    assert_eq!(spool.rest().iter().map(|report| received(report)).collect::<Vec<_>>(), [3 * MOST as u64]);
}

#[derive(Debug, Clone)]
enum Act {
    Add(u8, u64),
    Pass(i64),
    Send,
    /// The answer to the last report, or to one so much before it.
    Record(u64),
    /// The answer to a report of an earlier run.
    RecordOther,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0u8..3, 1u64..100).prop_map(|(share, rx)| Act::Add(share, rx)),
        2 => (1i64..40).prop_map(Act::Pass),
        4 => Just(Act::Send),
        3 => (0u64..2).prop_map(Act::Record),
        1 => Just(Act::RecordOther),
    ]
}

proptest! {
    #[test]
    fn every_byte_is_in_one_report_and_one_report_is_under_way(acts in vec(act(), 0..200)) {
        let (spool, mut now) = (TrafficSpool::default(), start());
        let (mut added, mut sent, mut number, mut is_recorded) = (0, 0, 0, true);
        for act in acts {
            match act {
                Act::Add(share, rx) => {
                    spool.add(vec![delta(share, rx)], now);
                    added += rx;
                }
                Act::Pass(seconds) => now += seconds.seconds(),
                Act::Send => {
                    let Some(report) = spool.next() else { continue };
                    prop_assert!(is_recorded);
                    prop_assert_eq!(report.number, number + 1);
                    (number, is_recorded) = (report.number, false);
                    sent += received(&report);
                }
                Act::Record(before) => {
                    spool.recorded(spool.id, number.wrapping_sub(before));
                    is_recorded |= before == 0;
                }
                Act::RecordOther => spool.recorded(Uuid::nil(), number),
            }
        }
        sent += spool.rest().iter().map(|report| received(report)).sum::<u64>();
        prop_assert_eq!(sent, added);
    }
}

/// The database of a server: what it has added, of which spool and number last.
#[derive(Default)]
struct Database {
    last: Option<(Uuid, u64)>,
    rx: u64,
}

impl Database {
    fn record(&mut self, report: &SpooledTraffic) {
        let is_new = self.last.is_none_or(|(spool, number)| spool != report.spool || number < report.number);
        if is_new {
            self.last = Some((report.spool, report.number));
            self.rx += received(report);
        }
    }
}

proptest! {
    /// A gateway that crashes loses what it has not written, and what was recorded is never added again.
    #[test]
    fn a_restart_loses_what_the_disk_has_not_and_counts_nothing_twice(
        acts in vec((0u8..7, 1u64..100, 1i64..6000), 0..150),
    ) {
        let file = PathBuf::from("unused");
        let new = KeptTraffic { spool: Uuid::now_v7(), last_number: 0, reports: Vec::new() };
        let (mut spool, mut now) = (TrafficSpool::of(new, file.clone()), start());
        let (mut database, mut disk) = (Database::default(), spool.to_keep());
        // Of what was added since the disk was written, and what a server has of it.
        let (mut added, mut lost) = (0, 0);
        let mut since = 0;
        for (act, rx, seconds) in acts {
            match act {
                0 | 1 => {
                    spool.add(vec![delta(u8::try_from(rx % 3).unwrap(), rx)], now);
                    (added, since) = (added + rx, since + rx);
                }
                2 => now += seconds.seconds(),
                3 => {
                    // Sent, and recorded. The answer may be lost with the gateway.
                    if let Some(report) = spool.again().or_else(|| spool.next()) {
                        database.record(&report);
                        if rx % 3 > 0 {
                            spool.recorded(report.spool, report.number);
                        }
                    }
                }
                4 => {
                    disk = spool.to_keep();
                    since = 0;
                }
                // It stops, and its last reports are recorded.
                5 => {
                    spool.rest().iter().for_each(|report| database.record(report));
                    spool = TrafficSpool::of(spool.to_keep(), file.clone());
                    disk = spool.to_keep();
                    since = 0;
                }
                _ => {
                    spool = TrafficSpool::of(disk, file.clone());
                    disk = spool.to_keep();
                    lost += since;
                    since = 0;
                }
            }
            prop_assert!(database.rx <= added, "{} {added}", database.rx);
        }
        while let Some(report) = spool.again().or_else(|| spool.next()) {
            database.record(&report);
            spool.recorded(report.spool, report.number);
        }
        prop_assert!(database.rx <= added && database.rx + lost >= added, "{} {added} {lost}", database.rx);
    }
}

#[test]
fn what_waits_for_days_is_joined_and_keeps_its_times() {
    let new = KeptTraffic { spool: Uuid::now_v7(), last_number: 0, reports: Vec::new() };
    let spool = TrafficSpool::of(new, PathBuf::from("unused"));
    let (day, seconds) = (86_400_i64, 2 * 86_400_i64);
    for second in (0..seconds).step_by(10) {
        spool.add(vec![delta(1, 1)], start() + second.seconds());
    }
    let kept = spool.to_keep();
    let fine = kept.reports.iter().filter(|report| received(report) == 1).count();
    let coarse = kept.reports.iter().filter(|report| received(report) == 30).count();
    assert_eq!(fine, usize::try_from(FINE_FOR / STEP).unwrap() + 1, "{}", kept.reports.len());
    assert!((500..=505).contains(&coarse), "{coarse}");
    assert_eq!(kept.reports.iter().map(|report| received(report)).sum::<u64>(), 2 * 8640);
    let times: Vec<_> = kept.reports.iter().map(|report| (report.at, report.number)).collect();
    assert!(times.is_sorted() && times[0].0 < start() + (day / 24).seconds());
}

#[tokio::test(start_paused = true)]
async fn a_file_is_written_while_something_waits_and_read_by_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("traffic");
    let spool = Arc::new(TrafficSpool::load(file.clone()));
    let over = tokio_util::sync::CancellationToken::new();
    let kept = tokio::spawn(Arc::clone(&spool).keep_on_disk(over.clone()));
    let long_ago = Timestamp::from_second(Timestamp::now().as_second() - 100).unwrap();
    spool.add(vec![delta(1, 7)], long_ago);
    let first = spool.next().unwrap();
    let is_written = |rx: u64| {
        let text = std::fs::read(&file).unwrap_or_default();
        let kept = serde_json::from_slice::<KeptTraffic>(&text);
        kept.is_ok_and(|kept| kept.reports.iter().map(|report| received(report)).sum::<u64>() == rx)
    };
    while !is_written(7) {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    // The next run sends the same report under the same number, and its own ones later.
    let next = TrafficSpool::load(file.clone());
    next.add(vec![delta(2, 5)], Timestamp::now());
    assert_eq!(next.next().unwrap(), first);
    next.recorded(first.spool, first.number);
    let own = next.next().unwrap();
    assert!(own.spool == first.spool && own.number > RESERVED, "{}", own.number);
    // What is recorded is written over, and the stop writes what has just been carried.
    spool.recorded(first.spool, first.number);
    while !is_written(0) {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    spool.add(vec![delta(1, 9)], Timestamp::now());
    over.cancel();
    kept.await.unwrap();
    assert!(is_written(9));
    std::fs::write(&file, "damaged").unwrap();
    assert!(TrafficSpool::load(file).next().is_none());
}

#[test]
fn steps_that_were_joined_and_recorded_after_the_disk_had_them_apart_are_not_counted_again() {
    let new = KeptTraffic { spool: Uuid::now_v7(), last_number: 0, reports: Vec::new() };
    let spool = TrafficSpool::of(new, PathBuf::from("unused"));
    for second in [0, 10, 20_i64] {
        spool.add(vec![delta(1, 1)], start() + second.seconds());
    }
    let disk = spool.to_keep();
    assert_eq!(disk.reports.len(), 3);
    // Hours later, they are one, which is recorded.
    spool.add(vec![delta(1, 5)], start() + (FINE_FOR + 100).seconds());
    let mut database = Database::default();
    let joined = spool.next().unwrap();
    assert_eq!(received(&joined), 3);
    database.record(&joined);
    // The gateway crashes.
    let next = TrafficSpool::of(disk, PathBuf::from("unused"));
    next.add(vec![delta(1, 7)], start() + (FINE_FOR + 200).seconds());
    while let Some(report) = next.next() {
        database.record(&report);
        next.recorded(report.spool, report.number);
    }
    assert_eq!(database.rx, 3 + 7);
}
