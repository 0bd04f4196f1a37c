//! The tables of the protocol, against the pure decisions.

use bytes::Bytes;
use proptest::prelude::*;

use super::{Now, append, expiry};
use crate::{
    admit, measured,
    request::{Append, AppendOutcome, Appended, Rejection},
    state::stream::{Identity, Producer, StreamState},
    types::{
        Closing, ContentType, Epoch, Expiry, Lsn, Offset, ProducerId, ProducerTuple, Seq, StoreMs,
        StreamName, WallMs,
    },
};

const NOW: Now = Now { wall: WallMs::new(1_000), store: StoreMs::new(50) };

struct Bench {
    identity: Identity,
    state: StreamState,
    producer: Option<Producer>,
    lsn: Lsn,
}

fn name() -> StreamName {
    StreamName::new("s").expect("a good name")
}

fn content(text: &str) -> ContentType {
    ContentType::parse(text).expect("a good type")
}

impl Bench {
    fn new(kind: &str) -> Self {
        let (identity, create) = measured::creation(name(), content(kind));
        let state = StreamState::new(&create, Lsn::new(1));
        Self { identity, state, producer: None, lsn: Lsn::new(1) }
    }

    fn run(&mut self, append: &Append) -> Result<Appended, Rejection> {
        let prepared =
            append.content.as_ref().map_or(Ok(None), |it| admit::prepare(it, &append.body));
        let before = self.state.clone();
        let known = self.producer.as_ref();
        let result = append::decide(&self.identity, &self.state, known, append, prepared, NOW);
        let verdict = match result {
            Ok(verdict) => verdict,
            Err(rejection) => {
                assert_eq!(self.state, before, "a refusal leaves no trace");
                return Err(rejection);
            }
        };
        if let Some(write) = verdict.change {
            self.lsn = self.lsn.next();
            self.state.apply(&write, self.lsn);
            if let Some(tuple) = &write.producer {
                self.producer = Some(Producer::after(known, tuple, self.state.next));
            }
        }
        Ok(verdict.answer)
    }
}

fn post(body: &'static str) -> Append {
    Append {
        name: name(),
        content: Some(content("text/plain")),
        body: Bytes::from_static(body.as_bytes()),
        closing: Closing::KeepOpen,
        producer: None,
        stream_seq: None,
        expected: None,
        key: None,
        timestamp: None,
    }
}

fn close(body: &'static str) -> Append {
    Append { closing: Closing::Close, ..post(body) }
}

fn by(epoch: u64, seq: u64, append: Append) -> Append {
    let id = ProducerId::new("p").expect("a good id");
    Append { producer: Some(ProducerTuple { id, epoch, seq }), ..append }
}

fn at(next: u64) -> Offset {
    Offset { epoch: Epoch::ZERO, next: Seq::new(next) }
}

#[test]
fn the_producer_table_holds() {
    let mut bench = Bench::new("text/plain");
    let gap = |expected, received| Err(Rejection::ProducerGap { expected, received });
    assert_eq!(bench.run(&by(3, 1, post("x"))).map(drop), gap(0, 1));
    assert_eq!(bench.run(&by(3, 0, post("a"))).expect("first").producer, Some((3, 0)));
    assert_eq!(bench.run(&by(3, 1, post("b"))).expect("next").next, at(2));
    assert_eq!(bench.run(&by(3, 3, post("x"))).map(drop), gap(2, 3));
    let again = bench.run(&by(3, 0, post("other"))).expect("a duplicate");
    assert_eq!(again.outcome, AppendOutcome::Duplicate);
    assert_eq!((again.producer, again.next), (Some((3, 1)), at(1)), "its own end, the highest seq");
    let stale = Err(Rejection::StaleEpoch { current: 3 });
    assert_eq!(bench.run(&by(2, 2, post("x"))).map(drop), stale);
    assert_eq!(bench.run(&by(4, 1, post("x"))).map(drop), Err(Rejection::EpochStart));
    assert_eq!(bench.run(&by(4, 0, post("c"))).expect("new epoch").producer, Some((4, 0)));
    assert_eq!(bench.state.producers, 1);
}

#[test]
fn a_duplicate_older_than_sixteen_answers_with_the_tail() {
    let mut bench = Bench::new("text/plain");
    for seq in 0..20 {
        bench.run(&by(0, seq, post("x"))).expect("in order");
    }
    assert_eq!(bench.run(&by(0, 4, post("x"))).expect("remembered").next, at(5));
    assert_eq!(bench.run(&by(0, 3, post("x"))).expect("forgotten").next, at(20));
}

#[test]
fn a_closed_stream_refuses_and_says_where_it_ends() {
    let mut bench = Bench::new("text/plain");
    bench.run(&post("a")).expect("open");
    let answer = bench.run(&by(0, 0, close("b"))).expect("closes");
    assert_eq!((answer.outcome, answer.closed), (AppendOutcome::Written, true));
    let closed = Err(Rejection::Closed { tail: at(2) });
    assert_eq!(bench.run(&post("c")).map(drop), closed);
    assert_eq!(bench.run(&close("c")).map(drop), closed);
    assert_eq!(bench.run(&by(0, 1, post("c"))).map(drop), closed);
    let wrong_type = Append { content: Some(content("image/png")), ..close("c") };
    assert_eq!(bench.run(&wrong_type).map(drop), closed);
    for repeat in [by(0, 0, close("b")), by(0, 0, close("")), by(0, 0, post("b"))] {
        let answer = bench.run(&repeat).expect("the closing request again");
        assert_eq!((answer.outcome, answer.closed), (AppendOutcome::Duplicate, true));
    }
    let again = bench.run(&close("")).expect("closing twice is fine");
    assert_eq!((again.outcome, again.next), (AppendOutcome::Closed, at(2)));
}

#[test]
fn the_ladder_refuses_in_order() {
    let mut bench = Bench::new("application/json");
    let json = |body| Append { content: Some(content("application/json")), ..post(body) };
    let check = |bench: &mut Bench, append: Append, expect: Rejection| {
        assert_eq!(bench.run(&append).map(drop), Err(expect));
    };
    check(&mut bench, post(""), Rejection::EmptyBody);
    check(&mut bench, Append { content: None, ..post("1") }, Rejection::ContentTypeMissing);
    check(&mut bench, by(0, 9, post("{")), Rejection::ContentTypeDiffers);
    check(&mut bench, json("[]"), Rejection::EmptyArray);
    assert!(matches!(
        bench.run(&by(0, 9, json("{"))).map(drop),
        Err(Rejection::InvalidJson { .. })
    ));
    bench.run(&Append { stream_seq: Some("2".into()), ..json("1") }).expect("fine");
    let conflict = Rejection::StreamSeq { last: "2".into(), tail: at(1) };
    check(&mut bench, Append { stream_seq: Some("10".into()), ..json("1") }, conflict);
    let both = Append { stream_seq: Some("1".into()), expected: Some(at(0)), ..json("1") };
    check(&mut bench, both, Rejection::ExpectedOffset { tail: at(1) });
    bench.run(&Append { expected: Some(at(1)), ..json("[1,2]") }).expect("at the tail");
    assert_eq!(bench.state.next, Seq::new(3));
}

#[test]
fn timestamps_are_clamped_between_the_last_one_and_now() {
    let mut bench = Bench::new("text/plain");
    for (hint, expect) in [(300, 300), (700, 700), (600, 700), (9_999, 1_000), (0, 1_000)] {
        bench.run(&Append { timestamp: Some(WallMs::new(hint)), ..post("x") }).expect("appends");
        assert_eq!(bench.state.last_append, WallMs::new(expect));
    }
}

proptest! {
    #[test]
    fn a_window_never_passes_early(ttl in 1u64..10_000, touched in 0u64..1 << 40, waited in 0u64..20_000_000) {
        let sliding = Expiry::Sliding { ttl_seconds: ttl };
        let touched = StoreMs::new(touched);
        let deadline = expiry::deadline(sliding, touched);
        let now = Now { wall: WallMs::ZERO, store: touched.plus(waited) };
        let exact = expiry::has_passed(sliding, deadline, Some(touched), now);
        prop_assert_eq!(exact, waited >= ttl * 1000);
        // Without the touch in memory the window may pass later, never earlier.
        let stored = expiry::has_passed(sliding, deadline, None, now);
        prop_assert!(!stored || exact);
        prop_assert!(stored || waited < ttl * 1000 + 60_000);
    }
}
