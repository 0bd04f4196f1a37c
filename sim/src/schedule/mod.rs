//! Named fault schedules: short scripts with a fixed seed, a small workload and one fault at a named
//! point, which tell line by line what clients were told and how the store looks from the inside.
//!
//! A random seed asks whether the promise holds; a schedule shows how. What it tells is kept in
//! `snapshots/schedules/` and changes only through review. Beside that each schedule checks that
//! every record that was acked is read again, in its place, after whatever happened.

mod bucket;
mod commits;
mod disk;
mod process;
mod seals;
mod shown;
mod stage;
mod streams;

use std::panic::{AssertUnwindSafe, catch_unwind};

use weir_io::memory::reseed_sqlite;

use self::stage::Stage;
use crate::{run, world};

/// The seed of a schedule if nobody names another.
pub const SEED: u64 = 4;

/// A script.
pub struct Schedule {
    /// What it is called, on the command line and in `snapshots/schedules/`.
    pub name: &'static str,
    /// What happens.
    pub about: &'static str,
    play: fn(&mut Stage),
}

/// All of them.
pub const ALL: [Schedule; 21] = [
    Schedule {
        name: "crash-before-commit",
        about: "the power goes before a commit is written, then before it is synced",
        play: commits::before,
    },
    Schedule {
        name: "crash-after-commit",
        about: "the power goes after the fsync of a commit and before the answer",
        play: commits::after,
    },
    Schedule {
        name: "torn-wal",
        about: "a power cut leaves parts of unsynced commits",
        play: commits::torn,
    },
    Schedule {
        name: "crash-in-seal",
        about: "the power goes between a segment file and its row",
        play: seals::between_file_and_row,
    },
    Schedule {
        name: "crash-in-fold",
        about: "the power goes between state rows and the mark that they are folded",
        play: seals::in_fold,
    },
    Schedule {
        name: "crash-in-trim",
        about: "the power goes between the mark of a fold and the end of its log rows",
        play: seals::in_trim,
    },
    Schedule {
        name: "crash-in-merge",
        about: "the power goes before the row of a merged segment, then after it",
        play: seals::in_merge,
    },
    Schedule {
        name: "failed-fsync",
        about: "an fsync of the log fails: once without loss, once after all was written",
        play: disk::failed_sync,
    },
    Schedule {
        name: "disk-full",
        about: "the disk fills up, reads and deletions go on, and space returns",
        play: disk::full,
    },
    Schedule {
        name: "bit-flip",
        about: "a bit of a segment flips, and flips back",
        play: disk::bit_flip,
    },
    Schedule {
        name: "lost-names",
        about: "a power cut loses names whose directory was not synced yet",
        play: disk::lost_names,
    },
    Schedule {
        name: "crash-loop",
        about: "recovery is cut off at its first change, its second, and so on",
        play: process::crash_loop,
    },
    Schedule {
        name: "drain-and-restart",
        about: "a graceful stop with a client waiting, and a start",
        play: process::drain,
    },
    Schedule {
        name: "two-processes",
        about: "a second process wants the directory of a running one",
        play: process::two,
    },
    Schedule {
        name: "long-pause",
        about: "the process is stopped for an hour while time goes on",
        play: process::pause,
    },
    Schedule {
        name: "clock-back",
        about: "the wall clock jumps back by an hour, and forward by two",
        play: process::clock,
    },
    Schedule {
        name: "crash-before-manifest",
        about: "the power goes between the upload of a segment and the manifest that names it",
        play: bucket::before_manifest,
    },
    Schedule {
        name: "crash-after-manifest",
        about: "the power goes between a manifest in the bucket and the store's note of it",
        play: bucket::after_manifest,
    },
    Schedule {
        name: "bucket-outage",
        about: "the bucket is away for ten minutes and a restart, and comes back",
        play: bucket::outage,
    },
    Schedule {
        name: "damaged-segment",
        about: "a bit of a segment in the bucket flips before a bootstrap",
        play: bucket::damaged,
    },
    Schedule {
        name: "overtaken",
        about: "another process recovers the store from its bucket while the first one runs",
        play: bucket::overtaken,
    },
];

/// The schedule of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Schedule> {
    ALL.iter().find(|schedule| schedule.name == name)
}

impl Schedule {
    /// The command that plays it.
    #[must_use]
    pub fn command(&self, seed: u64) -> String {
        let other = if seed == SEED { String::new() } else { format!(" --seed {seed}") };
        format!("cargo run -p sim -- run --schedule {}{other}", self.name)
    }

    /// Plays the script. Returns what it told.
    ///
    /// # Errors
    /// What it told, and the invariant that was broken or the panic.
    pub fn play(&self, seed: u64, echo: bool) -> Result<String, String> {
        world::align_task_ids();
        reseed_sqlite(seed);
        drop(run::panicked());
        let mut stage = Stage::new(seed, echo);
        let ran = catch_unwind(AssertUnwindSafe(|| (self.play)(&mut stage)));
        let panicked = run::panicked().or(ran.err().map(|_| "a panic without words".to_owned()));
        let breach = stage.breach().map(|breach| breach.to_string());
        let told = format!("{}: {}\n{}", self.name, self.about, stage.told());
        match breach.or(panicked) {
            None => Ok(told),
            Some(what) => {
                Err(format!("{told}failed: {what}\n  reproduce: {}\n", self.command(seed)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_that_fails_names_its_command() {
        let bad = Schedule { name: "bad", about: "fails", play: |_| panic!("it fails") };
        for (seed, command) in [(SEED, "--schedule bad\n"), (7, "--schedule bad --seed 7\n")] {
            let told = bad.play(seed, false).expect_err("it fails");
            let command = format!("reproduce: cargo run -p sim -- run {command}");
            assert!(told.ends_with(&command), "{told}");
        }
    }
}
