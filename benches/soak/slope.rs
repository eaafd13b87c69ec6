//! How a figure changes over time.

use std::time::Duration;

/// Whether it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    Flat,
    Grows,
    /// It is meant to.
    Meant,
}

/// A figure at several times.
#[derive(Debug)]
pub(crate) struct Series {
    points: Vec<(f64, f64)>,
    /// By how much the line through the points may rise; `None`: the figure is meant to grow.
    may_rise: Option<u64>,
}

impl Series {
    pub(crate) fn new(may_rise: Option<u64>) -> Self {
        Self { points: Vec::new(), may_rise }
    }

    pub(crate) fn add(&mut self, at: Duration, value: u64) {
        // Figures of a process: far below what a float is exact for.
        self.points.push((at.as_secs_f64(), value as f64));
    }

    fn after(&self, warm_up: f64) -> &[(f64, f64)] {
        let from = self.points.last().map_or(0.0, |(last, _)| last * warm_up);
        let first = self.points.partition_point(|(at, _)| *at < from);
        self.points.get(first..).unwrap_or_default()
    }

    /// Per second, of the line with the least squares.
    fn slope(&self, warm_up: f64) -> f64 {
        let points = self.after(warm_up);
        let count = points.len().max(1) as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let varies: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let together: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        if varies > 0.0 { together / varies } else { 0.0 }
    }

    /// By how much the line rises in the time that counts.
    fn rise(&self, warm_up: f64) -> f64 {
        let points = self.after(warm_up);
        let span = points.last().zip(points.first()).map_or(0.0, |(last, first)| last.0 - first.0);
        self.slope(warm_up) * span
    }

    pub(crate) fn growth(&self, warm_up: f64) -> Growth {
        match self.may_rise {
            None => Growth::Meant,
            Some(most) if self.rise(warm_up) > most as f64 => Growth::Grows,
            Some(_) => Growth::Flat,
        }
    }

    pub(crate) fn line(&self, warm_up: f64) -> String {
        let value = |point: Option<&(f64, f64)>| point.map_or(0.0, |point| point.1);
        let points = self.after(warm_up);
        let verdict = match self.growth(warm_up) {
            Growth::Flat => "flat",
            Growth::Grows => "GROWS",
            Growth::Meant => "a record of what was done",
        };
        format!(
            "{:>8} to {:>8}, {:>+10.1} an hour: {verdict}",
            value(points.first()),
            value(points.last()),
            self.slope(warm_up) * 3600.0
        )
    }
}
