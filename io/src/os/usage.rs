//! What a process has used: processor time, memory, bytes written.

use std::{fs, io, time::Duration};

use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};

use crate::{Process, process::Memory};

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

/// This process, as `/proc` tells it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsProcess;

impl Process for OsProcess {
    fn memory(&self) -> Option<Memory> {
        memory(&fs::read_to_string("/proc/self/status").ok()?)
    }
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

/// The memory that a `status` tells of.
fn memory(status: &str) -> Option<Memory> {
    let bytes = |name| told(status, name).and_then(|kib| kib.checked_mul(1024));
    let resident = bytes("VmRSS:")?;
    Some(Memory {
        resident,
        // The two are not read at one moment.
        resident_max: bytes("VmHWM:")?.max(resident),
        anonymous: bytes("RssAnon:")?,
        file: bytes("RssFile:")?,
        shared: bytes("RssShmem:")?,
    })
}

fn field(text: &str, name: &str) -> u64 {
    told(text, name).unwrap_or(0)
}

fn told(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
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
    fn the_memory_of_a_process_is_what_its_status_says() {
        let status = "Name:\tweir\nVmHWM:\t    7 kB\nVmRSS:\t    5 kB\nRssAnon:\t  3 kB\n\
                      RssFile:\t  2 kB\nRssShmem:\t 0 kB\n";
        let (resident, resident_max) = (5 << 10, 7 << 10);
        let (anonymous, file, shared) = (3 << 10, 2 << 10, 0);
        let expect = Memory { resident, resident_max, anonymous, file, shared };
        assert_eq!(memory(status), Some(expect));
        assert_eq!(memory(&status.replace("RssAnon", "Other")), None);
        assert_eq!(memory(&status.replace("5 kB", "lots")), None);
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
