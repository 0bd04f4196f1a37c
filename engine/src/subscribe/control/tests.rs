//! The rules of protocol §7 as cases, and what must hold whatever happens in whichever order.

use proptest::prelude::*;

use super::*;

const WEBHOOK: Terms = Terms { kind: Kind::Webhook, lease_ttl_ms: 30_000 };
const PULL: Terms = Terms { kind: Kind::Pull, lease_ttl_ms: 30_000 };

fn at(ms: u64) -> StoreMs {
    StoreMs::new(ms)
}

fn id(number: u8) -> WakeId {
    WakeId([number; 12])
}

fn chance(number: u8) -> Chance {
    // The middle of what chance may add or take away.
    Chance { wake_id: id(number), jitter: 0 }
}

fn seen(pending: bool, out: Out, ms: u64) -> Situation {
    Situation { pending, out, now: at(ms) }
}

fn wakes(turn: Turn) -> Control {
    match turn {
        Turn::Wake(control) => control,
        other => panic!("expected a wake, got {other:?}"),
    }
}

fn woken(terms: Terms) -> Control {
    wakes(Control::new().look(terms, seen(true, Out::No, 0), chance(1)))
}

#[test]
fn work_wakes_an_idle_subscription_once() {
    for terms in [WEBHOOK, PULL] {
        assert_eq!(Control::new().look(terms, seen(false, Out::No, 0), chance(1)), Turn::Rest);
        let control = woken(terms);
        assert_eq!((control.generation, control.wake_id()), (1, Some(id(1))));
        assert_eq!(control.look(terms, seen(true, Out::Begun, 29_999), chance(2)), Turn::Rest);
    }
}

#[test]
fn a_webhook_is_handed_out_then_waited_for_until_its_lease_ends() {
    let control = woken(WEBHOOK);
    assert_eq!(control.look(WEBHOOK, seen(true, Out::No, 0), chance(2)), Turn::Deliver);
    assert_eq!(control.due(WEBHOOK, Out::Begun), Some(at(30_000)));
    let given_up = control.look(WEBHOOK, seen(true, Out::Begun, 30_000), chance(2));
    let Turn::GiveUp(failed) = given_up else { panic!("{given_up:?}") };
    assert!(failed.failing);
    assert_eq!(failed.next_attempt, Some(at(30_800)));
    let next = wakes(failed.look(WEBHOOK, seen(true, Out::No, 30_800), chance(3)));
    assert_eq!((next.generation, next.wake_id(), next.failures), (2, Some(id(3)), 1));
}

fn waits(since: u64) -> Out {
    Out::Waits { since: at(since) }
}

#[test]
fn a_webhook_that_waits_for_its_receiver_never_fails_by_that() {
    let control = woken(WEBHOOK);
    for ms in [0, 29_999, 30_000, 1 << 40] {
        assert_eq!(control.look(WEBHOOK, seen(true, waits(0), ms), chance(2)), Turn::Rest);
        assert_eq!(control.look(WEBHOOK, seen(false, waits(0), ms), chance(2)), Turn::Rest);
    }
    assert_eq!(control.due(WEBHOOK, waits(0)), None);
    let back = control.look(WEBHOOK, seen(true, Out::No, 29_999), chance(2));
    assert_eq!(back, Turn::Deliver, "given back, it is handed out again");
    let late = wakes(control.look(WEBHOOK, seen(true, Out::No, 30_000), chance(2)));
    assert_eq!((late.generation, late.failures, late.failing), (2, 0, false));
}

#[test]
fn a_lease_starts_anew_if_the_wait_for_the_receiver_took_a_quarter_of_it() {
    let control = Control { failures: 2, failing: true, ..woken(WEBHOOK) };
    let wake = (id(1), 1);
    let begin =
        |failures, pending, out, ms| control.begin(WEBHOOK, wake, failures, seen(pending, out, ms));
    assert_eq!(begin(2, true, waits(0), 7_500), Ok(Beginning::Ready));
    assert_eq!(
        begin(2, true, waits(20_000), 27_500),
        Ok(Beginning::Ready),
        "a retry waited little"
    );
    for (since, ms) in [(0, 7_501), (29_999, 30_000), (0, 1 << 40)] {
        let renewed = begin(2, true, waits(since), ms);
        let Ok(Beginning::Renew(next)) = renewed else { panic!("{renewed:?}") };
        assert_eq!(next.due(WEBHOOK, Out::Begun), Some(at(ms + 30_000)));
        assert!(control.same_attempt(&next), "and nothing else changes");
        assert_eq!((next.generation, next.failures, next.failing), (1, 2, true));
    }
    let retired = begin(2, false, waits(0), 10);
    assert!(matches!(retired, Ok(Beginning::Retire(Control { phase: Phase::Idle, .. }))));
    for (failures, out) in [(1, waits(0)), (2, Out::No), (2, Out::Begun)] {
        assert_eq!(begin(failures, true, out, 10), Err(Refused::Fenced));
    }
    let reported = control.report(WEBHOOK, Via::Callback, wake, Ending::GoesOn, at(5));
    let reported = reported.expect("current").begin(WEBHOOK, wake, 0, seen(true, waits(0), 10));
    assert_eq!(reported, Err(Refused::Fenced), "whoever has reported need not be called");
}

#[test]
fn a_failed_delivery_is_repeated_with_growing_waits_as_the_same_wake() {
    let mut control = woken(WEBHOOK);
    let mut now = 0;
    for (failures, wait) in (0..).zip([800, 1600, 3200, 6400, 12_800]) {
        let wake = (id(1), 1);
        let failed =
            control.delivered(WEBHOOK, wake, failures, Delivered::Failed, at(now), chance(9));
        control = failed.expect("current").expect("changes");
        assert_eq!(control.next_attempt, Some(at(now + wait)));
        assert!(control.failing);
        let early = control.look(WEBHOOK, seen(true, Out::No, now + wait - 1), chance(2));
        assert_eq!(early, Turn::Rest);
        now += wait;
        assert_eq!(control.look(WEBHOOK, seen(true, Out::No, now), chance(2)), Turn::Deliver);
        let stale =
            control.delivered(WEBHOOK, wake, failures, Delivered::Failed, at(now), chance(9));
        assert_eq!(stale, Err(Refused::Fenced), "each attempt ends once");
    }
    control.next_attempt = Some(at(40_000));
    let next = wakes(control.look(WEBHOOK, seen(true, Out::No, 40_000), chance(2)));
    assert_eq!(next.generation, 2, "the lease has ended meanwhile");
    assert_eq!(next.failures, 5, "and the waits go on growing");
}

#[test]
fn waits_stay_within_a_fifth_of_their_length_and_below_their_bound() {
    for failures in [0, 3, 10, u32::MAX] {
        for jitter in [0, 1, u64::MAX, 24_000, 123_456_789] {
            let control = Control { failures, ..woken(WEBHOOK) };
            let chance = Chance { wake_id: id(1), jitter };
            let wait = control.failed(at(0), chance).next_attempt.expect("tried again").get();
            let middle = doubled(RETRY_MS_MIN, failures, RETRY_MS_MAX);
            assert!((middle * 4 / 5..=middle * 6 / 5).contains(&wait), "{wait} about {middle}");
        }
    }
}

#[test]
fn success_ends_the_failing_state() {
    let failing = Control { failures: 3, failing: true, ..woken(WEBHOOK) };
    let wake = (id(1), 1);
    for delivered in [Delivered::Done, Delivered::Accepted] {
        let after = failing.delivered(WEBHOOK, wake, 3, delivered, at(1), chance(2));
        let after = after.expect("current").expect("changes");
        assert!(!after.failing);
        assert_eq!(after.failures, 0);
    }
    let reported = failing.report(WEBHOOK, Via::Callback, wake, Ending::GoesOn, at(1));
    assert!(!reported.expect("current").failing);
}

#[test]
fn a_worker_that_reported_before_its_answer_broke_off_keeps_the_lease() {
    let wake = (id(1), 1);
    let held = woken(WEBHOOK).report(WEBHOOK, Via::Callback, wake, Ending::GoesOn, at(10));
    let held = held.expect("current");
    assert_eq!(held.due(WEBHOOK, Out::No), Some(at(30_010)));
    for delivered in [Delivered::Failed, Delivered::Accepted] {
        assert_eq!(held.delivered(WEBHOOK, wake, 0, delivered, at(11), chance(2)), Ok(None));
    }
}

#[test]
fn an_unclaimed_wake_is_announced_again_ever_more_rarely() {
    let mut control = woken(PULL);
    let mut now = 0;
    for (generation, wait) in
        (2..).zip([30_000, 60_000, 120_000, 240_000, 480_000, 600_000, 600_000])
    {
        assert_eq!(control.due(PULL, Out::No), Some(at(now + wait)));
        assert_eq!(control.look(PULL, seen(true, Out::No, now + wait - 1), chance(2)), Turn::Rest);
        now += wait;
        control = wakes(control.look(PULL, seen(true, Out::No, now), chance(2)));
        assert_eq!(control.generation, generation);
    }
    let idle = control.look(PULL, seen(false, Out::No, now + 600_000), chance(2));
    assert!(matches!(idle, Turn::Retire(Control { phase: Phase::Idle, .. })), "{idle:?}");
}

#[test]
fn a_claim_takes_the_announced_wake_or_makes_one() {
    let none = Control::new().claim(PULL, "w", false, at(0), id(1));
    assert_eq!(none, Err(Refused::NoPendingWork));
    let made = Control::new().claim(PULL, "w", true, at(0), id(1)).expect("claims");
    assert_eq!((made.generation, made.wake_id()), (1, Some(id(1))));
    let announced = woken(PULL).claim(PULL, "w", true, at(5), id(7)).expect("claims");
    assert_eq!((announced.generation, announced.wake_id()), (1, Some(id(1))));

    let busy = announced.claim(PULL, "v", true, at(30_004), id(8));
    assert_eq!(busy, Err(Refused::AlreadyClaimed { holder: "w".into(), generation: 1 }));
    let after = announced.claim(PULL, "v", true, at(30_005), id(8)).expect("the lease is over");
    assert_eq!((after.generation, after.wake_id()), (2, Some(id(8))));
    let late = announced.report(PULL, Via::Pull, (id(1), 1), Ending::Ends, at(30_005));
    assert_eq!(late, Err(Refused::Fenced));
}

#[test]
fn a_lease_that_ends_makes_the_next_wake_only_if_there_is_work() {
    let held = woken(PULL).claim(PULL, "w", true, at(0), id(7)).expect("claims");
    assert_eq!(held.look(PULL, seen(true, Out::No, 29_999), chance(2)), Turn::Rest);
    let next = wakes(held.look(PULL, seen(true, Out::No, 30_000), chance(2)));
    assert_eq!((next.generation, next.failures), (2, 0));
    let idle = held.look(PULL, seen(false, Out::No, 30_000), chance(2));
    assert!(matches!(idle, Turn::Retire(Control { generation: 1, phase: Phase::Idle, .. })));
}

#[test]
fn each_way_in_belongs_to_one_kind() {
    let wake = (id(1), 1);
    for (terms, via) in [(WEBHOOK, Via::Pull), (PULL, Via::Callback)] {
        let refused = woken(terms).report(terms, via, wake, Ending::Ends, at(0));
        assert!(matches!(refused, Err(Refused::WrongType(_))));
    }
    let claim = woken(WEBHOOK).claim(WEBHOOK, "w", true, at(0), id(2));
    assert!(matches!(claim, Err(Refused::WrongType(_))));
    let unclaimed = woken(PULL).report(PULL, Via::Pull, wake, Ending::Ends, at(0));
    assert_eq!(unclaimed, Err(Refused::Fenced), "an announcement is no claim");
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Work(bool),
    Look,
    /// The receiver has room.
    Begin,
    /// What waits is given back, or the store starts anew.
    Forget,
    Claim(u8),
    /// Of a wake this many generations back.
    Report(Ending, u64),
    Delivered(Delivered),
}

fn events() -> impl Strategy<Value = Event> {
    let ending = prop_oneof![Just(Ending::GoesOn), Just(Ending::Ends)];
    let delivered =
        prop_oneof![Just(Delivered::Done), Just(Delivered::Accepted), Just(Delivered::Failed)];
    prop_oneof![
        1 => (0..40_000u64).prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::Work),
        3 => Just(Event::Look),
        2 => Just(Event::Begin),
        1 => Just(Event::Forget),
        1 => any::<u8>().prop_map(Event::Claim),
        1 => (ending, 0..3u64).prop_map(|(ending, back)| Event::Report(ending, back)),
        1 => delivered.prop_map(Event::Delivered),
    ]
}

/// One subscription, its wakes so far, and whether the newest is being delivered.
struct Life {
    terms: Terms,
    control: Control,
    wakes: Vec<WakeId>,
    pending: bool,
    out: Out,
    now: u64,
}

impl Life {
    fn step(&mut self, event: Event) {
        let fresh = u8::try_from(self.wakes.len() % 251).expect("below 251");
        let via = if self.terms.kind == Kind::Webhook { Via::Callback } else { Via::Pull };
        let newest = (self.wakes.last().copied().unwrap_or(id(255)), self.control.generation);
        let now = at(self.now);
        let next = match event {
            Event::Wait(ms) => {
                self.now += ms;
                None
            }
            Event::Work(pending) => {
                self.pending = pending;
                None
            }
            Event::Look => self.look(chance(fresh)),
            Event::Begin => self.begin(newest),
            Event::Forget => {
                self.out = Out::No;
                None
            }
            Event::Claim(worker) => self
                .control
                .claim(self.terms, &worker.to_string(), self.pending, now, id(fresh))
                .ok(),
            Event::Report(ending, back) => {
                let generation = self.control.generation.saturating_sub(back);
                let of = usize::try_from(generation.saturating_sub(1)).expect("small");
                let wake_id = self.wakes.get(of).copied().unwrap_or(id(255));
                let wake = (wake_id, generation);
                let reported = self.control.report(self.terms, via, wake, ending, now);
                if generation < self.control.generation {
                    assert_eq!(reported, Err(Refused::Fenced), "an old wake reports nothing");
                }
                reported.ok()
            }
            Event::Delivered(_) if self.out != Out::Begun => None,
            Event::Delivered(how) => {
                let failures = self.control.failures;
                let chance = chance(fresh);
                let ended = self.control.delivered(self.terms, newest, failures, how, now, chance);
                ended.ok().flatten()
            }
        };
        if let Some(next) = next {
            self.take(next);
        }
    }

    fn look(&mut self, chance: Chance) -> Option<Control> {
        let situation = seen(self.pending, self.out, self.now);
        match self.control.look(self.terms, situation, chance) {
            Turn::Rest => {
                // Nothing is forgotten: there is no work, or a moment to look again is set.
                let due = self.control.due(self.terms, self.out);
                let later = due.is_some_and(|due| due > at(self.now));
                let waits = matches!(self.out, Out::Waits { .. });
                assert!(!self.pending || waits || later, "a lost wake");
                None
            }
            Turn::Deliver => {
                assert_eq!(self.out, Out::No, "each attempt is handed out once");
                self.out = waits(self.now);
                None
            }
            Turn::GiveUp(next) => {
                assert_eq!(self.out, Out::Begun, "waiting fails nobody");
                Some(next)
            }
            Turn::Wake(next) | Turn::Retire(next) => Some(next),
        }
    }

    fn begin(&mut self, newest: (WakeId, u64)) -> Option<Control> {
        let situation = seen(self.pending, self.out, self.now);
        let failures = self.control.failures;
        match self.control.begin(self.terms, newest, failures, situation).ok()? {
            Beginning::Retire(next) => Some(next),
            Beginning::Renew(next) => {
                self.take(next);
                self.call()
            }
            Beginning::Ready => self.call(),
        }
    }

    fn call(&mut self) -> Option<Control> {
        self.out = Out::Begun;
        let due = self.control.due(self.terms, self.out);
        assert!(due.is_some_and(|due| due > at(self.now)), "a call has time");
        None
    }

    fn take(&mut self, next: Control) {
        assert!(next.generation >= self.control.generation, "a generation never decreases");
        if let Some(wake_id) = next.wake_id() {
            if next.generation > self.control.generation {
                assert_eq!(next.generation, self.control.generation + 1);
                self.wakes.push(wake_id);
            }
            assert_eq!(Some(&wake_id), self.wakes.last(), "a wake has one generation");
        }
        if let (Phase::Held { holder: before, deadline, .. }, Phase::Held { holder, .. }) =
            (&self.control.phase, &next.phase)
        {
            let over = at(self.now) >= *deadline && next.generation > self.control.generation;
            assert!(before == holder || over, "two holders at once");
        }
        if !self.control.same_attempt(&next) {
            self.out = Out::No;
        }
        self.control = next;
    }
}

proptest! {
    #[test]
    fn generations_rise_one_holder_works_and_no_wake_is_lost(
        webhook: bool,
        happens in prop::collection::vec(events(), 1..200),
    ) {
        let terms = if webhook { WEBHOOK } else { PULL };
        let mut life = Life {
            terms,
            control: Control::new(),
            wakes: Vec::new(),
            pending: false,
            out: Out::No,
            now: 0,
        };
        for event in happens {
            life.step(event);
        }
    }
}
