//! A timer that is exact to microseconds.
//!
//! The runtime's own timers are exact to a millisecond, which is more than most requests take that
//! a load generator sends on schedule.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A timer of the system. Needs a tokio runtime around the caller.
#[derive(Debug)]
pub struct Timer {
    descriptor: AsyncFd<OwnedFd>,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(deprecated, reason = "its successor is unsafe; an `OwnedFd` does what that asks")]
        let descriptor = AsyncFd::new(descriptor)?;
        Ok(Timer { descriptor })
    }

    /// Returns after `delay`.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn sleep(&mut self, delay: Duration) -> io::Result<()> {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        // All zeros would mean: never.
        let delay = delay.max(Duration::from_nanos(1));
        let value = Timespec::try_from(delay).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: none, it_value: value };
        timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        // Setting the timer forgot what it had counted, so nothing has to be read.
        self.descriptor.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock as _, os::OsClock};

    #[tokio::test]
    async fn it_never_comes_early_and_can_be_set_again() {
        let clock = OsClock::new();
        let mut timer = Timer::new().expect("a descriptor");
        for delay in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(2)] {
            let before = clock.elapsed();
            timer.sleep(delay).await.expect("it comes");
            assert!(clock.elapsed() - before >= delay, "{delay:?}");
        }
    }
}
