//! How far long work has come: a line on the terminal that is written over. Work that ends soon has
//! none.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use tokio::time::Instant;

/// Before the first line.
const LONG: Duration = Duration::from_secs(1);
/// Between two lines.
const PERIOD: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: u64 = 24;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes.
    Bytes,
    /// Things of this name.
    Things(&'static str),
}

impl Unit {
    fn show(self, count: u64) -> String {
        match self {
            Self::Bytes => bytes(count),
            Self::Things(name) => format!("{count} {name}"),
        }
    }
}

/// Progress of some work. Nothing is shown where there is no terminal.
pub(crate) struct Progress {
    unit: Unit,
    total: Option<u64>,
    done: u64,
    /// Done before this process began.
    skipped: u64,
    began: Instant,
    drawn: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// Of `total` bytes, if that is known.
    pub(crate) fn new(total: Option<u64>) -> Self {
        Self::of(Unit::Bytes, total)
    }

    /// Of `total` of something, if that is known.
    pub(crate) fn of(unit: Unit, total: Option<u64>) -> Self {
        let shown = io::stderr().is_terminal();
        Self { unit, total, done: 0, skipped: 0, began: Instant::now(), drawn: None, shown }
    }

    /// So much was done by others.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.done += bytes;
        self.skipped += bytes;
    }

    /// So much more is done.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let Self { unit, total, done, skipped, began, .. } = *self;
        self.draw(|| line(unit, done, skipped, total, began.elapsed()));
    }

    /// Shows a line, unless the work has only just begun or the line before has just been drawn.
    pub(crate) fn draw(&mut self, line: impl FnOnce() -> String) {
        let drawn = self.drawn.map(|drawn| drawn.elapsed());
        if self.shown && is_due(self.began.elapsed(), drawn) {
            self.drawn = Some(Instant::now());
            // A terminal that is gone is not worth failing for.
            drop(write!(io::stderr(), "\r\x1b[K{}", line()));
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Whether a line is wanted of work that began so long ago, so long after the line before.
fn is_due(began: Duration, drawn: Option<Duration>) -> bool {
    began >= LONG && drawn.is_none_or(|drawn| drawn >= PERIOD)
}

fn line(unit: Unit, done: u64, skipped: u64, total: Option<u64>, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = rate(unit, done - skipped, millis);
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{}  {rate}", unit.show(done));
    };
    let shown = done.min(total);
    // Not by the rate: what does less than one thing a second would never end.
    let left = u128::from(total - shown) * u128::from(millis);
    let left = left.checked_div(u128::from(done - skipped)).map(|it| u64::try_from(it).ok());
    let left = left.flatten().map_or("?".to_owned(), |it| self::left(Duration::from_millis(it)));
    format!("{}  {}  {rate}  {left}", bar(shown, total), unit.show(shown))
}

/// How fast it goes. What is slow is told to a tenth.
fn rate(unit: Unit, count: u64, millis: u64) -> String {
    let tenths = count.saturating_mul(10_000) / millis;
    match unit {
        Unit::Things(name) if tenths < 100 => {
            format!("{}.{} {name}/s", tenths / 10, tenths % 10)
        }
        unit => format!("{}/s", unit.show(tenths / 10)),
    }
}

/// A line of work that ends with a time: how much of it is over, and what was done each second.
pub(crate) fn of_time(over: Duration, whole: Duration, each_second: &str) -> String {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (over, whole) = (millis(over.min(whole)), millis(whole).max(1));
    let left = left(Duration::from_millis(whole.saturating_sub(over)));
    format!("{}  {each_second}  {left}", bar(over, whole))
}

fn bar(done: u64, total: u64) -> String {
    let full = usize::try_from(done.saturating_mul(WIDTH) / total).unwrap_or(0);
    let width = usize::try_from(WIDTH).unwrap_or(0);
    let percent = done.saturating_mul(100) / total;
    format!("[{}{}] {percent:3}%", "#".repeat(full), ".".repeat(width - full))
}

fn left(time: Duration) -> String {
    // What has begun is not over.
    let seconds = time.as_millis().div_ceil(1_000);
    format!("{}:{:02} left", seconds / 60, seconds % 60)
}

/// Bytes, short.
pub(crate) fn bytes(count: u64) -> String {
    let (mut unit, mut rest) = (0, count);
    while rest >= 10_240 && unit < 4 {
        rest /= 1_024;
        unit += 1;
    }
    format!("{rest} {}", ["B", "KiB", "MiB", "GiB", "TiB"][unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line(Unit::Bytes, 3 << 20, 1 << 20, Some(4 << 20), second),
            "[##################......]  75%  3072 KiB  2048 KiB/s  0:01 left"
        );
        assert_eq!(line(Unit::Bytes, 100, 0, None, second), "100 B  100 B/s");
        assert!(line(Unit::Bytes, 0, 0, Some(100), second).ends_with("0 B/s  ?"));
        assert_eq!(
            line(Unit::Things("streams"), 5, 0, Some(20), second),
            "[######..................]  25%  5 streams  5.0 streams/s  0:03 left"
        );
        assert!(line(Unit::Bytes, 200, 0, Some(100), second).contains("100%"));
    }

    #[test]
    fn only_long_work_has_a_line() {
        let after = |millis| Duration::from_millis(millis);
        assert!(!is_due(after(999), None));
        assert!(is_due(after(1_000), None));
        assert!(!is_due(after(1_050), Some(after(50))));
        assert!(is_due(after(1_100), Some(after(100))));
    }

    #[test]
    fn what_is_slow_has_a_rate_and_an_end() {
        let streams = |done, seconds| {
            line(Unit::Things("streams"), done, 0, Some(4), Duration::from_secs(seconds))
        };
        assert!(
            streams(1, 10).ends_with("1 streams  0.1 streams/s  0:30 left"),
            "{}",
            streams(1, 10)
        );
        assert!(streams(3, 300).ends_with("3 streams  0.0 streams/s  1:40 left"));
        assert!(streams(0, 10).ends_with("0.0 streams/s  ?"));
    }

    #[test]
    fn work_that_ends_with_a_time_says_how_much_of_it_is_left() {
        let line = |millis| {
            let over = Duration::from_millis(millis);
            of_time(over, Duration::from_secs(12), "120 requests/s")
        };
        assert_eq!(line(0), "[........................]   0%  120 requests/s  0:12 left");
        assert_eq!(line(2_500), "[#####...................]  20%  120 requests/s  0:10 left");
        assert_eq!(line(13_000), "[########################] 100%  120 requests/s  0:00 left");
    }
}
