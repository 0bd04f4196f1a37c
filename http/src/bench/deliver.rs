//! How long records take from their writer to those who wait for them.
//!
//! The board of a stream keeps for each record when it was sent and acknowledged and how many
//! readers have it. A record counts if it was sent in the time measured, whenever it arrives: the
//! late ones are those one wants to know of.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    append::Witness,
    measure::{Span, Times, wide},
    record::Mark,
    verify::Written,
};

/// Times of what arrived.
#[derive(Clone, Debug)]
pub(super) struct Deliveries {
    /// From before it was sent to each of its readers.
    from_send: Times,
    /// From when its writer had the ack; zero for a reader who was faster.
    from_ack: Times,
    /// From before it was sent until the last of its readers had it.
    last: Times,
    pub(super) reconnects: u64,
}

impl Deliveries {
    pub(super) fn new() -> Self {
        Self { from_send: Times::new(), from_ack: Times::new(), last: Times::new(), reconnects: 0 }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.from_send.add(&other.from_send);
        self.from_ack.add(&other.from_ack);
        self.last.add(&other.last);
        self.reconnects += other.reconnects;
    }

    pub(super) fn count(&self) -> u64 {
        self.from_send.count()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "delivered": self.count(),
            "from_send_us": self.from_send.to_json(),
            "from_ack_us": self.from_ack.to_json(),
            "to_last_reader_us": self.last.to_json(),
            "reconnects": self.reconnects,
        })
    }
}

/// The boards of all streams. Clones share them.
#[derive(Clone)]
pub(super) struct Boards(Arc<Shared>);

struct Shared {
    span: Span,
    readers: usize,
    writers: usize,
    streams: Vec<Mutex<Board>>,
    writers_left: AtomicUsize,
    finished: watch::Sender<bool>,
}

#[derive(Default)]
struct Board {
    records: Vec<Slot>,
    /// What its writers say they wrote, once they have ended.
    written: BTreeMap<u32, Written>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    acked: Option<Duration>,
    readers: u32,
    last: Duration,
}

impl Boards {
    /// Boards for `streams` streams. Writer and reader number n belong to stream n modulo that.
    pub(super) fn new(span: &Span, streams: usize, writers: usize, readers: usize) -> Self {
        Self(Arc::new(Shared {
            span: span.clone(),
            readers,
            writers,
            streams: (0..streams).map(|_| Mutex::default()).collect(),
            writers_left: AtomicUsize::new(writers),
            finished: watch::Sender::new(false),
        }))
    }

    /// How many of `all` belong to a stream.
    fn share(&self, all: usize, stream: usize) -> usize {
        let streams = self.0.streams.len();
        all / streams + usize::from(stream < all % streams)
    }

    /// Where a record stands on the board of its stream. The writers of a stream take turns.
    fn place(&self, stream: usize, writer: u32, number: u64) -> Option<usize> {
        let streams = self.0.streams.len();
        let writers = self.share(self.0.writers, stream).max(1);
        // With fewer writers than streams, each stream has one.
        let turn =
            if self.0.writers > streams { usize::try_from(writer).ok()? / streams } else { 0 };
        usize::try_from(number).ok()?.checked_mul(writers)?.checked_add(turn)
    }

    fn with_slot<T>(
        &self,
        stream: usize,
        writer: u32,
        number: u64,
        act: impl FnOnce(&mut Slot) -> T,
    ) -> Option<T> {
        let place = self.place(stream, writer, number)?;
        let mut board = self.0.streams[stream].lock();
        // A lying server may name any number: a record a mile ahead gets no slot.
        if place > board.records.len() + SLOTS_AHEAD_MAX {
            return None;
        }
        if board.records.len() <= place {
            board.records.resize(place + 1, Slot::default());
        }
        Some(act(&mut board.records[place]))
    }

    /// A reader of the stream has this record.
    pub(super) fn seen(&self, stream: usize, mark: Mark, now: Duration, into: &Mutex<Deliveries>) {
        let expected = self.share(self.0.readers, stream);
        let slot = self.with_slot(stream, mark.writer, mark.number, |slot| {
            slot.readers += 1;
            slot.last = slot.last.max(now);
            *slot
        });
        let Some(slot) = slot.filter(|_| self.0.span.contains(mark.sent)) else { return };
        let mut deliveries = into.lock();
        deliveries.from_send.record(now.saturating_sub(mark.sent));
        let since_ack = slot.acked.map(|acked| now.saturating_sub(acked));
        deliveries.from_ack.record(since_ack.unwrap_or_default());
        if usize::try_from(slot.readers) == Ok(expected) {
            deliveries.last.record(slot.last.saturating_sub(mark.sent));
        }
    }

    /// A writer has ended.
    pub(super) fn writer_ended(&self, writer: u32, owned: &[(usize, Written)]) {
        for (stream, written) in owned {
            self.0.streams[*stream].lock().written.insert(writer, written.clone());
        }
        if self.0.writers_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.finished.send_replace(true);
        }
    }

    /// Returns when all writers have ended.
    pub(super) async fn finished(&self) {
        // The sender lives as long as the boards.
        drop(self.0.finished.subscribe().wait_for(|it| *it).await);
    }

    pub(super) fn is_finished(&self) -> bool {
        *self.0.finished.borrow()
    }

    /// What was written to a stream, once all writers have ended.
    pub(super) fn written(&self, stream: usize) -> BTreeMap<u32, Written> {
        self.0.streams[stream].lock().written.clone()
    }
}

/// How far ahead of all others on its board a record may be.
const SLOTS_AHEAD_MAX: usize = 1_000_000;

impl Witness for Boards {
    fn acked(&self, stream: usize, writer: u32, first: u64, count: u64, at: Duration) {
        for number in first..first + count {
            // No slot, no reader that could be measured by it.
            self.with_slot(stream, writer, number, |slot| slot.acked = Some(at));
        }
    }
}

/// Records that a stream holds for sure, by what was written.
pub(super) fn certain(written: &BTreeMap<u32, Written>) -> u64 {
    written.values().map(|it| it.sent - wide(it.doubtful.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_last_reader_of_each_record_is_measured() {
        let span = Span::new(MS * 100..MS * 200);
        // Two streams, four writers (two each), five readers (three and two).
        let boards = Boards::new(&span, 2, 4, 5);
        let into = Mutex::new(Deliveries::new());
        let mark = |writer, number, sent| Mark { writer, number, sent };
        boards.acked(1, 3, 7, 1, MS * 112);
        boards.seen(1, mark(3, 7, MS * 110), MS * 111, &into);
        boards.seen(1, mark(3, 7, MS * 110), MS * 117, &into);
        // Another writer's record of the same number.
        boards.seen(1, mark(1, 7, MS * 110), MS * 150, &into);
        // Sent during the warm-up.
        boards.seen(0, mark(0, 0, MS * 99), MS * 120, &into);
        let json = into.lock().to_json();
        assert_eq!(json["delivered"], 3);
        assert_eq!(json["to_last_reader_us"]["count"], 1);
        let last = json["to_last_reader_us"]["max"].as_f64().expect("a number");
        assert!((last / 7_000.0 - 1.0).abs() < 0.002, "{last}");
        let from_ack = json["from_ack_us"]["max"].as_f64().expect("a number");
        assert!((from_ack / 5_000.0 - 1.0).abs() < 0.002, "{from_ack}");
    }

    #[test]
    fn readers_learn_when_the_last_writer_has_ended() {
        let boards = Boards::new(&Span::new(MS..MS), 1, 2, 1);
        let written = Written { sent: 3, ..Written::default() };
        boards.writer_ended(0, &[(0, written.clone())]);
        assert!(!boards.is_finished());
        boards.writer_ended(1, &[(0, written)]);
        assert!(boards.is_finished());
        assert_eq!(certain(&boards.written(0)), 6);
    }

    #[test]
    fn a_record_from_nowhere_takes_no_memory() {
        let boards = Boards::new(&Span::new(MS..MS), 1, 1, 1);
        let into = Mutex::new(Deliveries::new());
        boards.seen(0, Mark { writer: 0, number: u64::MAX, sent: MS }, MS, &into);
        boards.seen(0, Mark { writer: 9, number: 1 << 40, sent: MS }, MS, &into);
        assert_eq!(into.lock().count(), 0);
    }
}
