//! Remembers which rare branches were ever taken.
//!
//! `sometimes!("a checkpoint met a reader")` marks a branch that a good test campaign must
//! reach. The simulator asks for [`reached`] at the end of a sweep and fails if a name is
//! missing. Cheap enough for production: one relaxed load after the first hit. Process-wide
//! by intent, a sweep runs many simulations; it feeds reports only, never a decision.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

static SITES: Mutex<Vec<&'static Site>> = Mutex::new(Vec::new());

/// One `sometimes!` in the source.
#[derive(Debug)]
pub struct Site {
    name: &'static str,
    reached: AtomicBool,
}

impl Site {
    /// A site that nobody has reached. Called by `sometimes!` only.
    #[must_use]
    pub const fn new(name: &'static str) -> Site {
        Site { name, reached: AtomicBool::new(false) }
    }

    /// Marks the site as reached.
    #[inline]
    pub fn hit(&'static self) {
        if !self.reached.load(Ordering::Relaxed) {
            self.register();
        }
    }

    #[cold]
    fn register(&'static self) {
        let mut sites = SITES.lock();
        // Under the lock, so that a site is listed once however many threads arrive first.
        if !self.reached.swap(true, Ordering::Relaxed) {
            sites.push(self);
        }
    }
}

/// Records that this branch was taken at least once in this process.
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {{
        static SITE: $crate::sometimes::Site = $crate::sometimes::Site::new($name);
        SITE.hit();
    }};
}

/// The names of all branches taken since the start or the last [`reset`].
#[must_use]
pub fn reached() -> BTreeSet<&'static str> {
    SITES.lock().iter().map(|site| site.name).collect()
}

/// Forgets everything reached so far.
pub fn reset() {
    let mut sites = SITES.lock();
    for site in sites.drain(..) {
        site.reached.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{reached, reset};

    #[test]
    fn a_branch_is_listed_once_taken_and_again_after_a_reset() {
        let take = || crate::sometimes!("the test took its branch");
        assert!(!reached().contains("the test took its branch"));
        take();
        take();
        assert!(reached().contains("the test took its branch"));
        reset();
        assert!(reached().is_empty());
        take();
        assert!(reached().contains("the test took its branch"));
    }
}
