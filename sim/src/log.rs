//! What happened in a simulation: a rolling hash over every line, and the last lines as text.

use std::collections::VecDeque;

use weir_io::memory::Trace;

/// Lines kept for a report.
const LINES_KEPT: usize = 120;

/// The trace of one seed.
#[derive(Debug, Default)]
pub struct Log {
    hash: Trace,
    last: VecDeque<String>,
    lines: u64,
    echo: bool,
}

impl Log {
    /// An empty trace; `echo` prints every line as it comes.
    #[must_use]
    pub fn new(echo: bool) -> Log {
        Log { echo, ..Log::default() }
    }

    /// Adds a line.
    pub fn add(&mut self, line: String) {
        self.hash.add_bytes(line.as_bytes());
        self.lines += 1;
        if self.echo {
            println!("{line}");
        }
        if self.last.len() == LINES_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// Adds what reports do not show: numbers for the hash, and a line for whoever follows the trace.
    pub fn aside(&mut self, words: &[u64], line: impl FnOnce() -> String) {
        words.iter().for_each(|word| self.hash.add(*word));
        if self.echo {
            println!("{}", line());
        }
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.value()
    }

    /// How many lines there were.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The last lines.
    #[must_use]
    pub fn tail(&self) -> String {
        self.last.iter().map(|line| format!("  {line}\n")).collect()
    }
}
