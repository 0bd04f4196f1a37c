//! Forks on the simulated machine: what they share, and what is left when streams end.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{End, live, name};
use weir_engine::{
    Engine,
    request::{
        Append, AppendOutcome, Create, CreateOutcome, Error, Fork, From, List, Read, Rejection,
    },
    types::{
        Closing, ContentType, Epoch, Expiry, Offset, ProducerId, ProducerTuple, Retention, Seq,
        WallMs,
    },
};
use weir_io::memory::Machine;

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

fn at(next: u64) -> Offset {
    Offset { epoch: Epoch::ZERO, next: Seq::new(next) }
}

fn plain(stream: &str, kind: &str) -> Create {
    Create {
        name: name(stream),
        content: ContentType::parse(kind),
        expiry: None,
        fork: None,
        retention: Retention::NONE,
        closing: Closing::KeepOpen,
        body: Bytes::new(),
        key: None,
    }
}

fn fork(stream: &str, source: &str, point: Option<u64>, sub_offset: u64) -> Create {
    let fork = Fork { source: name(source), at: point.map(at), sub_offset };
    Create { content: None, fork: Some(fork), ..plain(stream, TEXT) }
}

fn post(stream: &str, kind: &str, body: &str) -> Append {
    Append {
        name: name(stream),
        content: ContentType::parse(kind),
        body: Bytes::copy_from_slice(body.as_bytes()),
        closing: Closing::KeepOpen,
        producer: None,
        stream_seq: None,
        expected: None,
        key: None,
        timestamp: None,
    }
}

async fn made(engine: &Engine, create: Create) {
    let shown = create.name.clone();
    let made = engine.create(create).await;
    assert_eq!(
        made.map(|it| it.outcome).map_err(|it| it.to_string()),
        Ok(CreateOutcome::New),
        "{shown}"
    );
}

async fn say(engine: &Engine, stream: &str, body: &str) {
    engine.append(post(stream, TEXT, body)).await.expect("appends");
}

/// Everything from a position on, however many pages that takes.
async fn text_from(engine: &Engine, stream: &str, from: From, bytes_max: usize) -> String {
    let (mut text, mut from) = (Vec::new(), from);
    loop {
        let read = Read { name: name(stream), from, key: None, bytes_max };
        let page = engine.read(read).await.unwrap_or_else(|error| panic!("{stream}: {error}"));
        text.extend(page.pieces.concat());
        from = From::At(page.next);
        if page.up_to_date {
            return String::from_utf8(text).expect("text was written");
        }
    }
}

async fn text(engine: &Engine, stream: &str) -> String {
    let whole = text_from(engine, stream, From::Start, 1 << 20).await;
    assert_eq!(whole, text_from(engine, stream, From::Start, 3).await, "in small pages");
    whole
}

async fn refusal(engine: &Engine, create: Create) -> Rejection {
    match engine.create(create).await {
        Err(Error::Rejected(rejection)) => rejection,
        other => panic!("a refusal was expected: {other:?}"),
    }
}

async fn absence(engine: &Engine, stream: &str) -> Rejection {
    match engine.head(&name(stream)).await {
        Err(Error::Rejected(rejection)) => rejection,
        other => panic!("{stream} should not be there: {other:?}"),
    }
}

/// Long enough for the keeper to seal.
async fn seal() {
    tokio::time::sleep(Duration::from_secs(12)).await;
}

#[test]
fn a_chain_reads_the_same_from_memory_and_segments_and_after_every_end_of_a_life() {
    let machine = Machine::new(1);
    live(&machine, End::PowerCut, |engine| async move {
        made(&engine, plain("a", TEXT)).await;
        for word in ["a0.", "a1.", "a2.", "a3."] {
            say(&engine, "a", word).await;
        }
        seal().await;
        say(&engine, "a", "a4.").await;
        made(&engine, fork("b", "a", Some(3), 0)).await;
        say(&engine, "b", "b3.").await;
        seal().await;
        say(&engine, "b", "b4.").await;
        made(&engine, fork("c", "b", None, 0)).await;
        made(&engine, fork("d", "c", Some(2), 0)).await;
        made(&engine, fork("e", "c", Some(4), 0)).await;
        say(&engine, "c", "c5.").await;
        say(&engine, "a", "a5.").await;
    });
    for (end, word) in [(End::PowerCut, 'x'), (End::Clean, 'y'), (End::PowerCut, 'z')] {
        live(&machine, end, |engine| async move {
            let own = text_from(&engine, "e", From::At(at(4)), 100).await;
            assert_eq!(text(&engine, "a").await, "a0.a1.a2.a3.a4.a5.");
            assert_eq!(text(&engine, "b").await, "a0.a1.a2.b3.b4.");
            assert_eq!(text(&engine, "c").await, "a0.a1.a2.b3.b4.c5.");
            assert_eq!(text(&engine, "d").await, "a0.a1.");
            assert_eq!(text(&engine, "e").await, format!("a0.a1.a2.b3.{own}"));
            say(&engine, "e", &format!("{word}.")).await;
            assert_eq!(text(&engine, "e").await, format!("a0.a1.a2.b3.{own}{word}."));
        });
    }
}

#[test]
fn the_fork_point_is_any_position_up_to_the_tail_and_sub_offsets_cut() {
    let machine = Machine::new(2);
    live(&machine, End::Clean, |engine| async move {
        made(&engine, plain("a", TEXT)).await;
        say(&engine, "a", "abcdef").await;
        say(&engine, "a", "ghi").await;
        for sealed in [false, true] {
            if sealed {
                seal().await;
            }
            let named = |what: &str| format!("{what}{sealed}");
            for (what, point, sub, expect) in [
                ("zero", Some(0), 0, ""),
                ("one", Some(1), 0, "abcdef"),
                ("all", None, 0, "abcdefghi"),
                ("cut", Some(0), 4, "abcd"),
                ("whole", Some(0), 6, "abcdef"),
                ("second", Some(1), 2, "abcdefgh"),
            ] {
                made(&engine, fork(&named(what), "a", point, sub)).await;
                assert_eq!(text(&engine, &named(what)).await, expect);
            }
            // Sub-offsets compose.
            made(&engine, fork(&named("again"), &named("cut"), Some(0), 2)).await;
            say(&engine, &named("again"), "Z").await;
            assert_eq!(text(&engine, &named("again")).await, "abZ");
            for (point, sub) in [(Some(0), 7), (Some(1), 4), (Some(2), 1), (None, 1), (Some(3), 0)]
            {
                let refused = refusal(&engine, fork("bad", "a", point, sub)).await;
                assert!(matches!(refused, Rejection::ForkPoint(_)), "{point:?} {sub}: {refused:?}");
            }
        }
        made(&engine, plain("j", JSON)).await;
        engine.append(post("j", JSON, r#"[{"a":1,"b":[2,3]},"x,y"]"#)).await.expect("appends");
        engine.append(post("j", JSON, "3")).await.expect("appends");
        made(&engine, fork("j1", "j", Some(0), 1)).await;
        assert_eq!(text(&engine, "j1").await, r#"{"a":1,"b":[2,3]}"#);
        made(&engine, Create { body: "[7]".into(), ..fork("j2", "j", Some(1), 1) }).await;
        assert_eq!(
            text_from(&engine, "j2", From::Start, 999).await,
            r#"{"a":1,"b":[2,3]},"x,y",7"#
        );
        let refused = refusal(&engine, fork("bad", "j", Some(1), 3)).await;
        assert!(matches!(refused, Rejection::ForkPoint(_)));
        let bad = Create { body: "{".into(), ..fork("bad", "j", None, 0) };
        assert!(matches!(refusal(&engine, bad).await, Rejection::InvalidJson { .. }));
        engine.delete(&name("j2")).await.expect("deletes");
    });
}

#[test]
fn the_same_request_again_confirms_and_any_other_conflicts() {
    let machine = Machine::new(3);
    live(&machine, End::Clean, |engine| async move {
        let ttl = Some(Expiry::Sliding { ttl_seconds: 1000 });
        made(&engine, Create { expiry: ttl, ..plain("a", TEXT) }).await;
        say(&engine, "a", "abc").await;
        let cases = [
            fork("tail", "a", None, 0),
            fork("point", "a", Some(1), 0),
            fork("cut", "a", Some(0), 2),
            Create { expiry: Some(Expiry::Never), ..fork("forever", "a", Some(1), 0) },
        ];
        for create in &cases {
            made(&engine, create.clone()).await;
        }
        let head = engine.head(&name("tail")).await.expect("is there");
        assert_eq!(Some(head.expiry), ttl, "inherited");
        // Whatever becomes of the source.
        say(&engine, "a", "def").await;
        engine.delete(&name("a")).await.expect("deletes");
        for create in &cases {
            let again = engine.create(create.clone()).await.expect("confirms");
            assert_eq!(again.outcome, CreateOutcome::Existing);
        }
        let typed = Create { content: ContentType::parse(TEXT), ..cases[0].clone() };
        assert_eq!(engine.create(typed).await.expect("confirms").outcome, CreateOutcome::Existing);
        for other in [
            plain("tail", TEXT),
            fork("tail", "b", None, 0),
            fork("point", "a", Some(0), 0),
            fork("point", "a", None, 0),
            fork("cut", "a", Some(0), 1),
            Create { content: ContentType::parse(JSON), ..cases[0].clone() },
            fork("forever", "a", Some(1), 0),
        ] {
            assert_eq!(refusal(&engine, other).await, Rejection::ConfigurationDiffers);
        }
    });
}

#[test]
fn a_fork_has_its_own_closure_producers_and_sequence() {
    let machine = Machine::new(4);
    live(&machine, End::Clean, |engine| async move {
        let id = ProducerId::new("p").expect("a good id");
        let tuple = ProducerTuple { id, epoch: 0, seq: 0 };
        let produced = |stream: &str| Append {
            producer: Some(tuple.clone()),
            stream_seq: Some("5".into()),
            ..post(stream, TEXT, "x")
        };
        made(&engine, plain("a", TEXT)).await;
        engine.append(produced("a")).await.expect("appends");
        let close = Append { closing: Closing::Close, ..post("a", TEXT, "") };
        engine.append(close).await.expect("closes");
        made(&engine, fork("b", "a", None, 0)).await;
        assert!(!engine.head(&name("b")).await.expect("is there").closed);
        let answer = engine.append(produced("b")).await.expect("is new to it");
        assert_eq!((answer.outcome, answer.next), (AppendOutcome::Written, at(2)));
        let answer = engine.append(produced("b")).await.expect("repeats");
        assert_eq!(answer.outcome, AppendOutcome::Duplicate);
        let refused = refusal(
            &engine,
            Create { content: ContentType::parse(JSON), ..fork("c", "a", None, 0) },
        );
        assert_eq!(refused.await, Rejection::ContentTypeDiffers);
        engine.delete(&name("b")).await.expect("deletes");
        // The refused fork left no reference behind.
        engine.delete(&name("a")).await.expect("deletes");
        assert_eq!(absence(&engine, "a").await, Rejection::NotFound);
    });
}

#[test]
fn a_deleted_source_is_gone_to_all_but_its_forks_and_goes_with_the_last() {
    let machine = Machine::new(5);
    live(&machine, End::PowerCut, |engine| async move {
        made(&engine, plain("a", TEXT)).await;
        say(&engine, "a", "one.").await;
        made(&engine, fork("b", "a", None, 0)).await;
        say(&engine, "b", "two.").await;
        made(&engine, fork("c", "b", None, 0)).await;
        made(&engine, fork("side", "a", None, 0)).await;
        seal().await;
        let watch = engine.watch(&name("b")).await.expect("watches");
        engine.delete(&name("b")).await.expect("deletes");
        engine.delete(&name("a")).await.expect("deletes");
        assert_eq!(watch.changed(at(2)).await, weir_engine::Change::Gone);
    });
    for end in [End::PowerCut, End::Clean, End::PowerCut] {
        live(&machine, end, |engine| async move {
            for gone in ["a", "b"] {
                assert_eq!(absence(&engine, gone).await, Rejection::Gone);
                assert_eq!(refusal(&engine, plain(gone, TEXT)).await, Rejection::NameKept);
                let source = name(gone);
                let refused = refusal(&engine, fork("new", gone, None, 0)).await;
                assert_eq!(refused, Rejection::SourceGone(source));
                for result in [
                    engine.delete(&name(gone)).await,
                    engine.append(post(gone, TEXT, "x")).await.map(drop),
                    engine
                        .read(Read { name: name(gone), from: From::Start, key: None, bytes_max: 9 })
                        .await
                        .map(drop),
                    engine.watch(&name(gone)).await.map(drop),
                ] {
                    assert!(matches!(result, Err(Error::Rejected(Rejection::Gone))), "{result:?}");
                }
            }
            assert_eq!(text(&engine, "c").await, "one.two.");
            let list = engine.list(List { limit: 100, ..List::default() }).await.expect("lists");
            let names: Vec<_> = list.iter().map(|row| row.head.name.as_str()).collect();
            assert_eq!(names, ["c", "side"]);
        });
    }
    live(&machine, End::PowerCut, |engine| async move {
        engine.delete(&name("c")).await.expect("deletes");
        assert_eq!(absence(&engine, "c").await, Rejection::NotFound);
        assert_eq!(absence(&engine, "b").await, Rejection::NotFound, "went with c");
        assert_eq!(absence(&engine, "a").await, Rejection::Gone, "side keeps it");
    });
    live(&machine, End::PowerCut, |engine| async move {
        assert_eq!(absence(&engine, "a").await, Rejection::Gone);
        engine.delete(&name("side")).await.expect("deletes");
        assert_eq!(absence(&engine, "a").await, Rejection::NotFound);
        made(&engine, plain("a", TEXT)).await;
        assert_eq!(text(&engine, "a").await, "");
    });
}

#[test]
fn an_expired_source_is_kept_and_an_expired_fork_lets_go() {
    let machine = Machine::new(6);
    live(&machine, End::Clean, |engine| async move {
        let ttl = |seconds| Some(Expiry::Sliding { ttl_seconds: seconds });
        made(&engine, Create { expiry: ttl(5), ..plain("a", TEXT) }).await;
        say(&engine, "a", "x").await;
        made(&engine, Create { expiry: ttl(60), ..fork("b", "a", None, 0) }).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(absence(&engine, "a").await, Rejection::Gone);
        assert_eq!(text(&engine, "b").await, "x");
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(absence(&engine, "b").await, Rejection::NotFound);
        assert_eq!(absence(&engine, "a").await, Rejection::NotFound);
        // Over an expired name whose stream was a fork: its reference goes with it.
        made(&engine, plain("s", TEXT)).await;
        made(&engine, Create { expiry: ttl(1), ..fork("f", "s", None, 0) }).await;
        engine.delete(&name("s")).await.expect("deletes");
        tokio::time::advance(Duration::from_millis(1500)).await;
        made(&engine, plain("f", TEXT)).await;
        assert_eq!(absence(&engine, "s").await, Rejection::NotFound);
    });
}

#[test]
fn keyed_and_since_reads_of_a_fork_equal_a_scan() {
    let machine = Machine::new(7);
    live(&machine, End::Clean, |engine| async move {
        let said = |stream: &'static str, n: u64| Append {
            key: Some(if n.is_multiple_of(3) { "fizz" } else { "other" }.into()),
            timestamp: Some(WallMs::new(n * 10)),
            ..post(stream, TEXT, &format!("{n}."))
        };
        made(&engine, plain("a", TEXT)).await;
        for n in 0..40 {
            engine.append(said("a", n)).await.expect("appends");
            if n % 16 == 9 {
                seal().await;
            }
        }
        made(&engine, fork("b", "a", Some(30), 0)).await;
        for n in 30..50 {
            // What it inherits can be of the source's last moment at the latest.
            engine.append(said("b", n + 20)).await.expect("appends");
            if n == 40 {
                seal().await;
            }
        }
        let expect: Vec<u64> = (0..30).chain(50..70).collect();
        let join = |wanted: &dyn Fn(u64) -> bool| -> String {
            expect.iter().filter(|n| wanted(**n)).map(|n| format!("{n}.")).collect()
        };
        assert_eq!(text(&engine, "b").await, join(&|_| true));
        for since in [0u64, 5, 100, 290, 291, 300, 450, 500, 640, 690] {
            let found = text_from(&engine, "b", From::Since(WallMs::new(since)), 64).await;
            assert_eq!(found, join(&|n| n * 10 >= since), "since {since}");
        }
        let key = Some(Bytes::from_static(b"fizz"));
        let read = Read { name: name("b"), from: From::Start, key, bytes_max: 1 << 20 };
        let page = engine.read(read).await.expect("reads");
        assert_eq!(page.pieces.concat(), join(&|n| n % 3 == 0).into_bytes());
    });
}

#[test]
fn merges_keep_what_forks_can_read_and_drop_the_rest() {
    let machine = Machine::new(8);
    // Nothing that could be compressed: what is left tells what was kept.
    let line = |n: u64| -> String {
        let mut state = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let noise: String = (0..25)
            .map(|_| {
                // Xorshift (Marsaglia 2003).
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                format!("{state:016x}")
            })
            .collect();
        format!("{n:06}{noise}\n")
    };
    let whole = |limit: u64| -> String { (0..limit).map(line).collect() };
    live(&machine, End::Clean, |engine| async move {
        made(&engine, plain("a", TEXT)).await;
        for n in 0..40 {
            say(&engine, "a", &line(n)).await;
            if n == 19 {
                made(&engine, fork("b", "a", Some(10), 0)).await;
                made(&engine, fork("c", "b", Some(4), 0)).await;
                made(&engine, fork("d", "a", Some(18), 0)).await;
            }
            if n % 4 == 3 {
                seal().await;
            }
        }
        let merges =
            |n: usize| assert!(engine.metrics().segments.get() < i64::try_from(n).expect("small"));
        merges(10);
        let before = engine.metrics().segment_bytes.get();
        for gone in ["a", "d", "b"] {
            engine.delete(&name(gone)).await.expect("deletes");
        }
        made(&engine, plain("other", TEXT)).await;
        for _ in 0..24 {
            say(&engine, "other", "y").await;
            seal().await;
        }
        assert_eq!(text(&engine, "c").await, whole(4));
        let after = engine.metrics().segment_bytes.get();
        // Of 40 lines four can be read, and a segment has its index and footer.
        assert!(before > 40 * 150 && after < 12 * 400, "{after} bytes left of {before}");
    });
    live(&machine, End::PowerCut, |engine| async move {
        assert_eq!(text(&engine, "c").await, whole(4));
    });
}

#[test]
fn a_segment_that_nobody_can_read_goes() {
    let machine = Machine::new(11);
    live(&machine, End::Clean, |engine| async move {
        for stream in ["a", "b"] {
            made(&engine, plain(stream, TEXT)).await;
            say(&engine, stream, &"x".repeat(10_000)).await;
            seal().await;
        }
        made(&engine, fork("c", "a", None, 0)).await;
        engine.delete(&name("a")).await.expect("deletes");
        engine.delete(&name("b")).await.expect("deletes");
        seal().await;
        assert_eq!(engine.metrics().segments.get(), 1, "c reads the one of a");
        assert_eq!(text(&engine, "c").await, "x".repeat(10_000));
        engine.delete(&name("c")).await.expect("deletes");
        seal().await;
        assert_eq!(engine.metrics().segments.get(), 0);
    });
    live(&machine, End::Clean, |engine| async move {
        assert_eq!(absence(&engine, "a").await, Rejection::NotFound);
    });
}

#[test]
fn a_name_that_was_used_before_shares_no_epoch_with_its_earlier_lives() {
    let machine = Machine::new(9);
    live(&machine, End::Clean, |engine| async move {
        made(&engine, plain("f", TEXT)).await;
        say(&engine, "f", "old").await;
        say(&engine, "f", "old").await;
        engine.delete(&name("f")).await.expect("deletes");
        made(&engine, plain("a", TEXT)).await;
        for _ in 0..3 {
            say(&engine, "a", "a").await;
        }
        let again = fork("f", "a", Some(2), 0);
        made(&engine, again.clone()).await;
        say(&engine, "f", "new").await;
        assert_eq!(text(&engine, "f").await, "aanew");
        // An offset of the earlier life, in what is inherited now: that is other data.
        for next in [1, 2, 3] {
            let read = Read { name: name("f"), from: From::At(at(next)), key: None, bytes_max: 99 };
            let lost = engine.read(read).await;
            assert!(
                matches!(lost, Err(Error::Rejected(Rejection::OffsetLost { .. }))),
                "{next}: {lost:?}"
            );
        }
        let confirmed = engine.create(again).await.expect("confirms");
        assert_eq!(confirmed.outcome, CreateOutcome::Existing);
        assert_eq!(confirmed.head.next, Offset { epoch: Epoch::new(1), next: Seq::new(3) });
        // A name that was never used shares its source's offsets up to the point.
        made(&engine, fork("g", "a", Some(2), 0)).await;
        say(&engine, "g", "new").await;
        assert_eq!(text_from(&engine, "g", From::At(at(1)), 99).await, "anew");
    });
}

/// Power cuts at every operation of a life in which forks come and go: whatever was answered holds,
/// and in the end nothing is kept that nobody refers to.
#[test]
fn references_are_exact_whenever_the_power_fails() {
    let mut reached = std::collections::BTreeSet::new();
    for cut in 1..100u64 {
        let machine = Machine::new(1000 + cut);
        let said = Said::default();
        live(&machine, End::PowerCut, |engine| {
            let (drive, said) = (machine.drive().clone(), Said::clone(&said));
            async move {
                drive.kill_in(cut);
                // The machine may be dead: then nothing goes on.
                drop(
                    tokio::time::timeout(Duration::from_secs(600), come_and_go(&engine, &said))
                        .await,
                );
            }
        });
        let told = said.take();
        reached.insert(told.len());
        live(&machine, End::PowerCut, |engine| async move {
            hold(&engine, &told, cut).await;
        });
    }
    assert!(reached.len() >= 8, "the power failed at too few moments: {reached:?}");
}

/// What a life has said, which outlives it.
type Said = std::rc::Rc<std::cell::RefCell<Vec<String>>>;

/// Says `?x` before it asks for x, and `x` when that is answered.
async fn come_and_go(engine: &Engine, said: &Said) -> Option<()> {
    let ask = |what: &str| said.borrow_mut().push(format!("?{what}"));
    let told = |what: &str| said.borrow_mut().push(what.to_owned());
    ask("a");
    engine.create(plain("a", TEXT)).await.ok()?;
    told("a");
    engine.append(post("a", TEXT, "x")).await.ok()?;
    for (stream, source) in [("b", "a"), ("c", "b")] {
        ask(stream);
        engine.create(fork(stream, source, None, 0)).await.ok()?;
        told(stream);
    }
    for (what, stream) in [("-a", "a"), ("-b", "b"), ("-c", "c")] {
        ask(what);
        engine.delete(&name(stream)).await.ok()?;
        told(what);
        seal().await;
    }
    Some(())
}

async fn hold(engine: &Engine, told: &[String], cut: u64) {
    let was = |what: String| told.contains(&what);
    let mut there = std::collections::BTreeMap::new();
    for stream in ["a", "b", "c"] {
        let found = match engine.head(&name(stream)).await {
            Ok(_) => Some(true),
            Err(Error::Rejected(Rejection::Gone)) => Some(false),
            Err(Error::Rejected(Rejection::NotFound)) => None,
            Err(error) => panic!("{stream}: {error}, cut {cut}: {told:?}"),
        };
        let created = was(stream.to_owned());
        let deletion_asked = was(format!("?-{stream}"));
        let last_fork_ends = was("?-c".to_owned());
        assert!(found.is_none() || was(format!("?{stream}")), "{stream}, cut {cut}: {told:?}");
        assert!(found != Some(true) || !was(format!("-{stream}")), "{stream} is there, cut {cut}");
        assert!(found != Some(false) || deletion_asked, "{stream} is gone, cut {cut}: {told:?}");
        let may_be_missing = !created || (deletion_asked && (stream == "c" || last_fork_ends));
        // Without a fork that was asked for, a deletion is one for good.
        let forkless = deletion_asked && stream == "a" && !was("?b".to_owned());
        assert!(
            found.is_some() || may_be_missing || forkless,
            "{stream} is lost, cut {cut}: {told:?}"
        );
        there.insert(stream, found);
    }
    if there["c"] == Some(true) {
        assert_eq!(text(engine, "c").await, "x", "cut {cut}");
        assert!(there["a"].is_some() && there["b"].is_some(), "cut {cut}: {there:?}");
    }
    for stream in ["c", "b", "a"] {
        match engine.delete(&name(stream)).await {
            Ok(()) | Err(Error::Rejected(Rejection::NotFound)) => {}
            Err(error) => panic!("{stream}: {error}, cut {cut}: {told:?}"),
        }
    }
    for stream in ["a", "b", "c"] {
        assert_eq!(absence(engine, stream).await, Rejection::NotFound, "cut {cut}");
    }
}

/// A chain that is nowhere in memory, all retired but its last fork, ends with that.
#[test]
fn a_long_chain_of_forks_ends_with_its_last() {
    const DEPTH: u32 = 300;
    let machine = Machine::new(10);
    let link = |level: u32| format!("chain/{level}");
    live(&machine, End::Clean, |engine| async move {
        made(&engine, plain(&link(0), TEXT)).await;
        say(&engine, &link(0), "x").await;
        for level in 1..=DEPTH {
            made(&engine, fork(&link(level), &link(level - 1), None, 0)).await;
        }
        for level in 0..DEPTH {
            engine.delete(&name(&link(level))).await.expect("deletes");
        }
    });
    live(&machine, End::Clean, |engine| async move {
        assert_eq!(text(&engine, &link(DEPTH)).await, "x");
        engine.delete(&name(&link(DEPTH))).await.expect("deletes");
        for level in 0..=DEPTH {
            assert_eq!(absence(&engine, &link(level)).await, Rejection::NotFound);
        }
    });
}
