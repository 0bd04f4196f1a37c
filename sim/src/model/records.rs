//! What is known of requests with records: whether they happened, where their records lie, and
//! when they may have come to be.

use bytes::Bytes;
use weir_engine::types::StreamName;

use super::{Checked, Model};
use crate::{
    checks::{self, Breach},
    require,
};

/// A record: which request's, which of its records.
pub type Mark = (usize, usize);

/// What is known of a request's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is on its way.
    Pending,
    /// It may or may not have happened.
    Maybe,
    /// It has.
    Acked,
    /// It has not, and must not any more.
    Refused,
}

/// A request that carries records.
#[derive(Clone, Debug)]
pub struct Request {
    pub name: StreamName,
    pub records: Vec<Vec<u8>>,
    pub key: Option<Bytes>,
    pub stream_seq: Option<u64>,
    pub fate: Fate,
    /// An earlier attempt ended without an answer.
    pub in_doubt: bool,
    /// Bounds of the timestamp its records may have got by themselves.
    pub wall: (u64, u64),
    pub hint: Option<u64>,
    /// Epoch and first position, once known.
    pub at: Option<(u32, u64)>,
    /// Nobody sent it: it stands for the part of a record that a fork begins with.
    pub is_cut: bool,
}

impl Model {
    /// Takes a new request; its records are made by `make` from its number.
    pub fn request(
        &mut self,
        name: &StreamName,
        wall: u64,
        make: impl FnOnce(usize) -> Vec<Vec<u8>>,
    ) -> usize {
        let id = self.requests.len();
        self.requests.push(Request {
            name: name.clone(),
            records: make(id),
            key: None,
            stream_seq: None,
            fate: Fate::Pending,
            in_doubt: false,
            wall: (wall, wall),
            hint: None,
            at: None,
            is_cut: false,
        });
        id
    }

    /// The same request is sent (again).
    pub fn attempt(&mut self, id: usize, wall: u64) {
        let request = &mut self.requests[id];
        if request.fate != Fate::Acked {
            request.fate = Fate::Pending;
        }
        *self.pending.entry(id).or_default() += 1;
        if request.at.is_none() {
            request.wall = (request.wall.0.min(wall), request.wall.1.max(wall));
        }
    }

    /// The wall clock moved or time passed: requests on their way may get this timestamp, unless they
    /// are known to have happened.
    pub fn wall_is(&mut self, wall: u64) {
        self.wall_max = self.wall_max.max(wall);
        for id in self.pending.keys() {
            let request = &mut self.requests[*id];
            if request.at.is_some() {
                continue;
            }
            request.wall = (request.wall.0.min(wall), request.wall.1.max(wall));
        }
    }

    /// The request was answered with a no. With an earlier attempt in doubt that proves little.
    pub fn refuse(&mut self, id: usize) {
        let request = &mut self.requests[id];
        if request.fate == Fate::Pending {
            request.fate = if request.in_doubt { Fate::Maybe } else { Fate::Refused };
        }
        self.answered(id);
    }

    /// The request's outcome is unknown, and nothing comes of it any more.
    pub fn doubt(&mut self, id: usize) {
        self.give_up(id);
        self.answered(id);
    }

    /// The request's outcome is unknown, and it may still be heard.
    pub fn give_up(&mut self, id: usize) {
        let request = &mut self.requests[id];
        request.in_doubt = true;
        if request.fate == Fate::Pending {
            request.fate = Fate::Maybe;
        }
    }

    /// The request was answered. What was sent twice at once is still on its way.
    pub fn answered(&mut self, id: usize) {
        if let Some(times) = self.pending.get_mut(&id) {
            *times -= 1;
            if *times == 0 {
                self.pending.remove(&id);
            }
        }
    }

    /// After a restart the whole of a name was read: what was not there never will be.
    pub fn settle(&mut self, name: &StreamName) {
        // What happened and went before anybody saw it stays in doubt.
        let missed = self.may_have_missed(name);
        for request in self.requests.iter_mut().filter(|_| !missed) {
            if request.name == *name && request.fate == Fate::Maybe && request.at.is_none() {
                request.fate = Fate::Refused;
                request.in_doubt = false;
            }
        }
        self.settle_creation(name);
    }

    /// A request is known to have happened at this place.
    pub fn place(&mut self, id: usize, epoch: u32, first: u64) -> Checked {
        let Some(request) = self.requests.get(id) else {
            return Breach::of(checks::SENT, format!("request {id} was never made"));
        };
        let name = request.name.clone();
        self.meet(&name, epoch)?;
        let request = &mut self.requests[id];
        require!(
            request.fate != Fate::Refused,
            checks::TRACE,
            "request {id} of '{name}' was refused or lost but lies at {epoch}_{first}"
        );
        if let Some((known_epoch, known)) = request.at {
            require!(
                known_epoch == epoch,
                checks::EPOCHS,
                "request {id} of '{name}' lies at {known_epoch}_{known} and at {epoch}_{first}"
            );
            require!(
                known == first,
                checks::ONCE,
                "request {id} of '{name}' lies at {known_epoch}_{known} and at {epoch}_{first}"
            );
            return Ok(());
        }
        request.at = Some((epoch, first));
        request.fate = Fate::Acked;
        let count = request.records.len();
        let life = self.life(&name, epoch);
        let start = usize::try_from(first).expect("simulated streams are short");
        if life.records.len() < start + count {
            life.records.resize(start + count, None);
        }
        for index in 0..count {
            let known = life.records[start + index].replace((id, index));
            if let Some((other, _)) = known {
                return Breach::of(
                    checks::SAME,
                    format!(
                        "requests {other} and {id} of '{name}' share {epoch}_{}",
                        start + index
                    ),
                );
            }
        }
        Ok(())
    }

    /// Bounds of a position's timestamp; `None` if something before it is not known.
    #[must_use]
    pub fn timestamp(&self, name: &StreamName, epoch: u32, position: u64) -> Option<(u64, u64)> {
        // What comes first may be older than the stream: only records bound each other.
        let mut bounds = (0, 0);
        for before in 0..=position {
            let request = &self.requests[self.known(name, epoch, before)?.0];
            let hint = request.hint.unwrap_or(u64::MAX);
            bounds.0 = bounds.0.max(request.wall.0.min(hint));
            bounds.1 = bounds.1.max(request.wall.1.min(hint));
        }
        // What a fork writes itself is not older than the last record of its source was then.
        let own = self
            .origins(name, epoch)
            .filter(|(_, origin)| origin.point.is_none_or(|point| position >= point));
        let latest = own.map(|(_, origin)| origin.wall_max).max().unwrap_or(0);
        Some((bounds.0, bounds.1.max(latest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a request that was sent twice at once may have been written, once the first of the two
    /// came to its end and time went on to 50.
    fn check(end: impl FnOnce(&mut Model, usize), expect: (u64, u64)) {
        let name = StreamName::new("a").expect("a good name");
        let mut model = Model::default();
        let id = model.request(&name, 10, |_| vec![b"r".to_vec()]);
        model.requests[id].in_doubt = true;
        model.attempt(id, 10);
        model.attempt(id, 10);
        end(&mut model, id);
        model.wall_is(50);
        assert_eq!(model.requests[id].wall, expect);
    }

    #[test]
    fn what_may_still_be_heard_may_still_be_written() {
        check(|model, id| model.refuse(id), (10, 50));
        check(|model, id| model.doubt(id), (10, 50));
        let given_up = |model: &mut Model, id| {
            model.refuse(id);
            model.give_up(id);
        };
        check(given_up, (10, 50));
    }

    #[test]
    fn what_has_happened_or_is_over_is_not_written_later() {
        let placed = |model: &mut Model, id| {
            model.answered(id);
            model.place(id, 0, 0).expect("a place");
        };
        check(placed, (10, 10));
        let over = |model: &mut Model, id| {
            model.doubt(id);
            model.doubt(id);
        };
        check(over, (10, 10));
    }
}
