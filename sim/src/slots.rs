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
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context;

/// How long whoever finds no place waits before it looks again.
const LOOK: Duration = Duration::from_millis(20);

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

    /// Takes a place, as soon as there is one.
    ///
    /// # Errors
    /// A file of theirs can be neither made nor opened.
    pub fn take(&self) -> anyhow::Result<Slot> {
        loop {
            if let Some(slot) = self.look()? {
                return Ok(slot);
            }
            thread::sleep(LOOK);
        }
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

    #[test]
    fn there_are_as_many_places_as_were_said_and_one_that_is_given_back_is_free() {
        let dir = std::env::temp_dir().join(format!("weir-sim-slots-{}", std::process::id()));
        let slots = Slots::below(&dir, 2).expect("a directory");
        let look = || slots.look().expect("files");
        let first = slots.take().expect("files");
        let second = look();
        assert!(second.is_some());
        assert!(look().is_none());
        drop(first);
        assert!(look().is_some());
        fs::remove_dir_all(dir).expect("it is there");
    }
}
