//! How far long work has come: a line on the terminal that is written over.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use tokio::time::Instant;

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
        let due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= PERIOD);
        if self.shown && due {
            self.drawn = Some(Instant::now());
            let line = line(self.unit, self.done, self.skipped, self.total, self.began.elapsed());
            // A terminal that is gone is not worth failing for.
            drop(write!(io::stderr(), "\r\x1b[K{line}"));
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

fn line(unit: Unit, done: u64, skipped: u64, total: Option<u64>, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = (done - skipped).saturating_mul(1_000) / millis;
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{}  {}/s", unit.show(done), unit.show(rate));
    };
    let done = done.min(total);
    let bar = usize::try_from(done.saturating_mul(WIDTH) / total).unwrap_or(0);
    let width = usize::try_from(WIDTH).unwrap_or(0);
    let left = match (total - done).checked_div(rate) {
        Some(seconds) => format!("{}:{:02} left", seconds / 60, seconds % 60),
        None => "?".to_owned(),
    };
    let percent = done.saturating_mul(100) / total;
    let blocks = format!("{}{}", "#".repeat(bar), ".".repeat(width - bar));
    format!("[{blocks}] {percent:3}%  {}  {}/s  {left}", unit.show(done), unit.show(rate))
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
            "[##################......]  75%  3072 KiB  2048 KiB/s  0:00 left"
        );
        assert_eq!(line(Unit::Bytes, 100, 0, None, second), "100 B  100 B/s");
        assert!(line(Unit::Bytes, 0, 0, Some(100), second).ends_with("0 B/s  ?"));
        assert_eq!(
            line(Unit::Things("streams"), 5, 0, Some(20), second),
            "[######..................]  25%  5 streams  5 streams/s  0:03 left"
        );
        assert!(line(Unit::Bytes, 200, 0, Some(100), second).contains("100%"));
    }
}
