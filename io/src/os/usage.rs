//! What a process has used: processor time, memory, bytes written.

use std::{fs, io, time::Duration};

use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};

/// What a process has used until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all its threads.
    pub cpu: Duration,
    /// Memory it occupies.
    pub resident_bytes: u64,
    /// The most it ever occupied.
    pub resident_bytes_max: u64,
    /// Bytes it caused to be written to storage; 0 if the system does not tell.
    pub written_bytes: u64,
}

/// Processor time of this process, exact.
#[must_use]
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("processor time is not negative")
}

/// What a process has used, as `/proc` tells it. Processor time is in ticks, mostly 10 ms.
///
/// # Errors
/// There is no such process, or the system has no `/proc`.
pub fn of(pid: u32) -> io::Result<Usage> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let status = read("status")?;
    // That of another user's process is secret.
    let io = read("io").unwrap_or_default();
    Ok(Usage {
        cpu: cpu(&read("stat")?).ok_or_else(|| io::Error::other("/proc/PID/stat is strange"))?,
        resident_bytes: field(&status, "VmRSS:") << 10,
        resident_bytes_max: field(&status, "VmHWM:") << 10,
        written_bytes: field(&io, "write_bytes:"),
    })
}

/// Fields 14 and 15, counted from behind the name, which may hold blanks and parentheses.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let ticks = times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / clock_ticks_per_second()))
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something_and_no_process_nothing() {
        let usage = of(std::process::id()).expect("it runs");
        assert!(usage.resident_bytes > 0);
        assert!(usage.resident_bytes_max >= usage.resident_bytes / 2);
        assert!(own_cpu() > Duration::ZERO);
        assert!(of(0).is_err());
    }

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 300 200 0 0";
        assert_eq!(
            cpu(stat),
            Some(Duration::from_secs(500) / u32::try_from(clock_ticks_per_second()).expect("few"))
        );
        assert_eq!(cpu("7 (a) S 1"), None);
    }
}
