//! Cases of protocol §6, and agreement with a model that keeps every link.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> StreamName {
    StreamName::new(text).expect("a good name")
}

fn at(epoch: u32, next: u64) -> Offset {
    Offset { epoch: Epoch::new(epoch), next: Seq::new(next) }
}

fn stream(id: u64) -> StreamId {
    StreamId::new(id)
}

fn only(links: &Links) -> Link {
    let listed = links.list(9).listed;
    let [link] = &listed[..] else { panic!("{listed:?}") };
    link.clone()
}

#[test]
fn a_matching_stream_is_linked_just_before_its_first_append() {
    let mut links = Links::default();
    assert!(links.touch(&name("a"), stream(1), at(0, 5), at(0, 7)));
    assert_eq!((only(&links).acked, only(&links).tail), (at(0, 5), at(0, 7)));
    assert!(links.touch(&name("a"), stream(1), at(0, 7), at(0, 8)));
    assert_eq!((only(&links).acked, only(&links).tail), (at(0, 5), at(0, 8)));
    assert_eq!(links.pending(), 1);
}

#[test]
fn the_first_append_of_a_stream_is_pending_from_the_start_whatever_its_epoch() {
    let mut links = Links::default();
    links.touch(&name("a"), stream(1), at(3, 0), at(3, 1));
    assert_eq!(only(&links).acked, Offset::START);
}

#[test]
fn a_match_that_is_processed_is_kept_no_longer() {
    let mut links = Links::default();
    links.touch(&name("a"), stream(1), at(0, 0), at(0, 3));
    assert!(links.ack(&name("a"), stream(1), at(0, 2)));
    assert_eq!(links.pending(), 1);
    assert!(links.ack(&name("a"), stream(1), at(0, 3)));
    assert_eq!(links, Links::default());
    assert!(!links.ack(&name("a"), stream(1), at(0, 3)), "again");
}

#[test]
fn a_name_that_is_processed_stays_and_wakes_again() {
    let mut links = Links::default();
    links.name(&name("a"), Some(stream(1)), at(0, 4));
    assert_eq!(links.pending(), 0, "linked at its tail");
    links.touch(&name("a"), stream(1), at(0, 4), at(0, 6));
    assert_eq!(only(&links).acked, at(0, 4));
    links.ack(&name("a"), stream(1), at(0, 6));
    assert_eq!((links.pending(), links.explicit()), (0, 1));
    assert!(!only(&links).has_pending());
}

#[test]
fn a_missing_stream_that_was_named_is_pending_from_its_start() {
    let mut links = Links::default();
    links.name(&name("a"), None, Offset::START);
    assert_eq!(links.pending(), 0);
    links.touch(&name("a"), stream(9), at(0, 0), at(0, 1));
    assert_eq!((only(&links).acked, only(&links).kind), (Offset::START, LinkType::Explicit));
}

#[test]
fn a_stream_that_ends_takes_its_work_along() {
    let mut links = Links::default();
    links.touch(&name("a"), stream(1), at(0, 0), at(0, 3));
    links.name(&name("b"), Some(stream(2)), at(0, 9));
    links.touch(&name("b"), stream(2), at(0, 9), at(0, 10));
    assert!(links.ended(&name("a"), stream(1)));
    assert!(links.ended(&name("b"), stream(2)));
    assert_eq!(links.pending(), 0);
    assert_eq!((only(&links).path, only(&links).acked), (name("b"), Offset::START));
    links.touch(&name("b"), stream(3), at(1, 0), at(1, 1));
    assert_eq!((only(&links).acked, only(&links).tail), (Offset::START, at(1, 1)));
    assert!(!links.ended(&name("b"), stream(2)), "an end of an earlier stream");
}

#[test]
fn naming_a_pending_match_keeps_its_place_and_unnaming_gives_it_back() {
    let mut links = Links::default();
    links.touch(&name("a"), stream(1), at(0, 2), at(0, 3));
    assert!(links.name(&name("a"), Some(stream(1)), at(0, 3)));
    assert_eq!((only(&links).acked, only(&links).kind), (at(0, 2), LinkType::Explicit));
    assert!(!links.name(&name("a"), Some(stream(1)), at(0, 3)));
    assert!(links.unname(&name("a"), true));
    assert_eq!((only(&links).acked, only(&links).kind), (at(0, 2), LinkType::Glob));
    assert!(!links.unname(&name("a"), true));
    links.name(&name("a"), Some(stream(1)), at(0, 3));
    assert!(links.unname(&name("a"), false));
    assert_eq!(links, Links::default());
}

#[test]
fn the_list_shows_work_first_and_says_how_much_there_is() {
    let mut links = Links::default();
    links.name(&name("a"), Some(stream(1)), at(0, 1));
    for next in 2..6 {
        links.touch(&name(&format!("s/{next}")), stream(next), at(0, 1), at(0, 2));
    }
    let list = links.list(5);
    assert_eq!(list.pending, 4);
    assert_eq!(list.listed[4].path, name("a"));
    assert_eq!(links.list(2).listed.len(), 2);
}

/// One of a few streams, in whichever incarnation.
#[derive(Clone, Debug)]
enum Event {
    Write(usize, u64),
    /// So far into what there is to process.
    Ack(usize, u64),
    Recreate(usize),
    Name(usize),
    Unname(usize),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4usize, 1..4u64).prop_map(|(at, count)| Event::Write(at, count)),
        3 => (0..4usize, 0..5u64).prop_map(|(at, into)| Event::Ack(at, into)),
        1 => (0..4usize).prop_map(Event::Recreate),
        1 => (0..4usize).prop_map(Event::Name),
        1 => (0..4usize).prop_map(Event::Unname),
    ]
}

/// Every link of every stream, kept or not.
#[derive(Clone, Copy, Debug)]
struct Model {
    epoch: u32,
    tail: u64,
    acked: u64,
    explicit: bool,
}

impl Model {
    fn id(self, at: usize) -> StreamId {
        stream(1 + u64::from(self.epoch) * 4 + u64::try_from(at).expect("small"))
    }
}

proptest! {
    #[test]
    fn what_is_kept_says_what_a_model_of_all_links_says(
        happens in prop::collection::vec(events(), 1..120),
    ) {
        let names: Vec<_> = (0..4).map(|at| name(&format!("s/{at}"))).collect();
        let mut model = [Model { epoch: 0, tail: 0, acked: 0, explicit: false }; 4];
        let mut links = Links::default();
        for event in happens {
            match event {
                Event::Write(i, count) => {
                    let it = &mut model[i];
                    let (before, after) = (at(it.epoch, it.tail), at(it.epoch, it.tail + count));
                    links.touch(&names[i], it.id(i), before, after);
                    it.tail += count;
                }
                Event::Ack(i, into) => {
                    let it = &mut model[i];
                    let to = (it.acked + into).min(it.tail);
                    links.ack(&names[i], it.id(i), at(it.epoch, to));
                    it.acked = to;
                }
                Event::Recreate(i) => {
                    links.ended(&names[i], model[i].id(i));
                    model[i] = Model { epoch: model[i].epoch + 1, tail: 0, acked: 0, ..model[i] };
                }
                Event::Name(i) => {
                    let it = &mut model[i];
                    links.name(&names[i], Some(it.id(i)), at(it.epoch, it.tail));
                    it.explicit = true;
                }
                Event::Unname(i) => {
                    links.unname(&names[i], true);
                    model[i].explicit = false;
                }
            }
            let pending = model.iter().filter(|it| it.tail > it.acked).count();
            prop_assert_eq!(links.pending(), pending);
            prop_assert_eq!(links.explicit(), model.iter().filter(|it| it.explicit).count());
            prop_assert_eq!(links.named().count(), links.explicit());
            for (name, it) in names.iter().zip(model) {
                let kept = links.get(name);
                prop_assert_eq!(kept.is_some(), it.explicit || it.tail > it.acked);
                let Some(kept) = kept else { continue };
                prop_assert_eq!(kept.acked().next.get(), it.acked);
                if kept.stream().is_some() {
                    prop_assert_eq!(kept.tail().next.get(), it.tail);
                }
            }
        }
    }
}
