//! One place per core for simulations, over all processes of this machine: whoever simulates takes
//! one and keeps it until its process ends, so that test programs which run beside each other, each
//! with children of its own, never crowd each other out.
//!
//! A place is a lock on a file, which the operating system gives back whatever becomes of its holder.
#![expect(
    clippy::disallowed_methods,
    reason = "places are real files, and waiting takes real time"
)]

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context;

/// How long whoever finds no place waits before it looks again.
const LOOK: Duration = Duration::from_millis(20);
/// Who has waited for so long says so: 2 s.
const TELL_LOOKS: u32 = 100;
/// How the line begins in which it says so.
pub(crate) const WAITING: &str = "waiting for one of ";

/// How many simulations may run at once.
#[must_use]
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A place that is taken.
#[derive(Debug)]
pub struct Slot {
    // Closing it gives the place back.
    _file: File,
}

/// The places of this machine.
#[derive(Debug)]
pub struct Slots {
    dir: PathBuf,
    count: usize,
}

impl Slots {
    /// One for each core.
    ///
    /// # Errors
    /// They have no directory.
    pub fn of_machine() -> anyhow::Result<Self> {
        Self::below(&std::env::temp_dir().join("weir-sim-slots"), cores())
    }

    fn below(dir: &Path, count: usize) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), count })
    }

    /// Takes a place, as soon as there is one. Who waits for long says so on the standard error.
    ///
    /// # Errors
    /// A file of theirs can be neither made nor opened.
    pub fn take(&self) -> anyhow::Result<Slot> {
        // Not `eprintln`, which tests keep to themselves until they have failed.
        let say = |line: &str| drop(writeln!(io::stderr(), "{line}"));
        self.wait(|| thread::sleep(LOOK), say)
    }

    fn wait(&self, mut nap: impl FnMut(), mut say: impl FnMut(&str)) -> anyhow::Result<Slot> {
        let mut looks = 0;
        loop {
            if let Some(slot) = self.look()? {
                return Ok(slot);
            }
            looks += 1;
            if looks == TELL_LOOKS {
                say(&self.waiting());
            }
            nap();
        }
    }

    fn waiting(&self) -> String {
        format!("{WAITING}{} places, which are locks in {}", self.count, self.dir.display())
    }

    /// A place, if one is free.
    fn look(&self) -> anyhow::Result<Option<Slot>> {
        for number in 0..self.count {
            let path = self.dir.join(number.to_string());
            let made = File::options().append(true).create(true).open(&path);
            // Somebody else's file can be locked if it can be read.
            let file = made.or_else(|_| File::open(&path));
            let file = file.with_context(|| format!("opening {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => return Ok(Some(Slot { _file: file })),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("locking {}", path.display()));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places in a directory that goes with them.
    fn with_places(name: &str, count: usize, check: impl FnOnce(Slots)) {
        let unique = format!("weir-sim-slots-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(unique);
        check(Slots::below(&dir, count).expect("a directory"));
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[test]
    fn there_are_as_many_places_as_were_said_and_one_that_is_given_back_is_free() {
        with_places("count", 2, |slots| {
            let look = || slots.look().expect("files");
            let first = slots.take().expect("files");
            let second = look();
            assert!(second.is_some());
            assert!(look().is_none());
            drop(first);
            assert!(look().is_some());
        });
    }

    #[test]
    fn who_waits_for_a_place_says_so_once_after_a_while() {
        assert_eq!(LOOK * TELL_LOOKS, Duration::from_secs(2));
        for (naps, tells) in [(0, 0), (TELL_LOOKS - 1, 0), (TELL_LOOKS, 1), (TELL_LOOKS * 3, 1)] {
            with_places("wait", 1, |slots| {
                let mut held = (naps > 0).then(|| slots.take().expect("files"));
                let (mut left, mut said) = (naps, Vec::new());
                let nap = || {
                    left -= 1;
                    if left == 0 {
                        drop(held.take());
                    }
                };
                slots.wait(nap, |line| said.push(line.to_owned())).expect("files");
                assert_eq!(left, 0);
                assert_eq!(said.len(), tells, "after {naps} naps: {said:?}");
                let dir = slots.dir.display();
                let line = format!("waiting for one of 1 places, which are locks in {dir}");
                assert!(said.iter().all(|it| *it == line), "{said:?}");
            });
        }
    }
}
