//! When a request that nobody answered is over. A restart of the server ends everything that it
//! had heard; without one a request is over once the server ran for [`DOUBT_MAX`] since its client
//! gave it up: by then its packets have arrived or never will, its head was read or given up
//! (15 s), and what it asks for was done.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use crate::model::{Doubt, Model};

/// Running time of the server, pauses apart, after which a request given up has no effect any more.
pub const DOUBT_MAX: Duration = Duration::from_secs(20);

/// Requests whose outcome nobody knows, in a town.
#[derive(Debug, Default)]
pub struct Doubts {
    open: RefCell<Vec<Open>>,
    /// How long the server's process ran.
    ran: Cell<Duration>,
}

#[derive(Debug)]
struct Open {
    doubt: Doubt,
    /// Which run of the process it was given up in.
    boot: u32,
    /// How long processes had run by then.
    ran: Duration,
}

impl Doubts {
    /// A request was given up.
    pub fn open(&self, doubt: Doubt, boot: u32) {
        self.open.borrow_mut().push(Open { doubt, boot, ran: self.ran.get() });
    }

    /// The server's process ran.
    pub fn ran(&self, time: Duration) {
        self.ran.set(self.ran.get() + time);
    }

    /// Closes what is over, now that the machine runs for the `boot`th time. How many were closed.
    pub fn close(&self, model: &mut Model, boot: u32) -> usize {
        let mut open = self.open.borrow_mut();
        let before = open.len();
        let ran = self.ran.get();
        open.retain(|it| {
            let over = boot > it.boot || ran >= it.ran + DOUBT_MAX;
            if over {
                model.passed(&it.doubt);
            }
            !over
        });
        before - open.len()
    }

    /// Forgets all: the town is left, and a restart tells everything.
    pub fn clear(&self) {
        self.open.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use weir_engine::types::StreamName;

    use super::*;

    #[test]
    fn a_doubt_ends_with_a_restart_or_with_the_time_that_a_request_can_take() {
        let name = StreamName::new("a").expect("a good name");
        for (boot, ran, closed) in [
            (1, DOUBT_MAX - Duration::from_millis(1), 0),
            (1, DOUBT_MAX, 1),
            (2, Duration::ZERO, 1),
        ] {
            let (doubts, mut model) = (Doubts::default(), Model::default());
            doubts.ran(Duration::from_secs(100));
            model.deletion_begins(&name);
            doubts.open(Doubt::Deletion(name.clone()), 1);
            doubts.ran(ran);
            assert_eq!(doubts.close(&mut model, boot), closed, "{boot} {ran:?}");
            let open = usize::try_from(model.names[&name].deletions_open).expect("small");
            assert_eq!(open, 1 - closed);
        }
    }
}
