//! What was asked of a bucket: requests, bytes, failures and time by artifact and verb, and how
//! many of late.
//!
//! The figures are one node's and no part of any log: [`Counts::snapshot`] is kept by whoever
//! has a file, and given back to [`Counts::restore`] by the next run. The minutes that
//! [`Counts::recent`] looks at begin anew with each run. Knows no prices.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::Clock;

/// Minutes that [`Counts::recent`] looks back.
const MINUTES: usize = 60;
/// A shorter run counts as this long, or the requests of a start would look like a storm.
const WINDOW_MIN: Duration = Duration::from_secs(300);
/// First line of a written snapshot.
const HEADING: &str = "weir-requests 1";

/// What an object is for: the first segment of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Artifact {
    /// Records.
    Segments,
    /// State of streams.
    Rows,
    /// Pages of long manifests.
    Pages,
    /// Manifests.
    Manifest,
    /// Boundaries of the collection.
    Gc,
    /// Trials whether the bucket may be used.
    Probe,
    /// Everything else, a look at the whole bucket too.
    Other,
}

impl Artifact {
    /// All of them.
    pub const ALL: [Artifact; 7] = [
        Artifact::Segments,
        Artifact::Rows,
        Artifact::Pages,
        Artifact::Manifest,
        Artifact::Gc,
        Artifact::Probe,
        Artifact::Other,
    ];

    /// That of a key, or of a prefix that goes beyond the first slash.
    #[must_use]
    pub fn of(key: &str) -> Artifact {
        let first = key.split_once('/').map(|(first, _)| first);
        let known = Artifact::ALL.into_iter().find(|it| Some(it.as_str()) == first);
        known.unwrap_or(Artifact::Other)
    }

    /// Its name, which is the segment of the key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Artifact::Segments => "segments",
            Artifact::Rows => "rows",
            Artifact::Pages => "pages",
            Artifact::Manifest => "manifest",
            Artifact::Gc => "gc",
            Artifact::Probe => "probe",
            Artifact::Other => "other",
        }
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// A creation.
    Create,
    /// A read of a whole object.
    Get,
    /// A read of a part of one.
    GetRange,
    /// A look at an object.
    Head,
    /// A page of a listing.
    List,
    /// A deletion.
    Delete,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 6] =
        [Verb::Create, Verb::Get, Verb::GetRange, Verb::Head, Verb::List, Verb::Delete];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Get => "get",
            Verb::GetRange => "get_range",
            Verb::Head => "head",
            Verb::List => "list",
            Verb::Delete => "delete",
        }
    }
}

/// Figures of the requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests that ended, each attempt for itself.
    pub requests: u64,
    /// Bytes of objects that those which were answered sent or received.
    pub bytes: u64,
    /// Those that were refused, got no answer, or were given up. An object that is not there,
    /// or is there already, is an answer.
    pub errors: u64,
    /// The time that all of them took, in microseconds.
    pub micros: u64,
}

impl Figures {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Figures) -> Figures {
        Figures {
            requests: self.requests.saturating_add(other.requests),
            bytes: self.bytes.saturating_add(other.bytes),
            errors: self.errors.saturating_add(other.errors),
            micros: self.micros.saturating_add(other.micros),
        }
    }
}

/// Requests by verb over a stretch of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// How long the stretch is; at least five minutes.
    pub window: Duration,
    /// How many there were.
    pub requests: BTreeMap<Verb, u64>,
}

/// Counts requests. Those of several buckets may be counted together.
pub struct Counts {
    clock: Arc<dyn Clock>,
    started: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counted: Snapshot,
    /// The last minutes that had requests, by their number; at most [`MINUTES`].
    minutes: BTreeMap<u64, BTreeMap<Verb, u64>>,
}

impl Counts {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Counts {
        let started = clock.elapsed();
        Counts { clock, started, state: Mutex::default() }
    }

    /// Everything counted so far, earlier runs included once they are restored.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.lock().counted.clone()
    }

    /// Adds what earlier runs have counted; once, whenever in this run.
    pub fn restore(&self, earlier: &Snapshot) {
        let mut state = self.state.lock();
        for (artifact, verb, figures) in earlier.iter() {
            state.counted.add(artifact, verb, figures);
        }
    }

    /// The requests of the last hour, or of this run if it is shorter.
    #[must_use]
    pub fn recent(&self) -> Recent {
        let now = self.clock.elapsed();
        let oldest = oldest_minute(minute(now));
        let mut requests = BTreeMap::new();
        for (_, verbs) in self.state.lock().minutes.range(oldest..) {
            for (verb, count) in verbs {
                *requests.entry(*verb).or_default() += count;
            }
        }
        let begin = self.started.max(Duration::from_secs(oldest * 60));
        Recent { window: now.saturating_sub(begin).max(WINDOW_MIN), requests }
    }

    /// A request sets out. It counts as given up unless the guard hears how it ended.
    pub(super) fn begin(&self, artifact: Artifact, verb: Verb) -> UnderWay<'_> {
        let began = self.clock.elapsed();
        UnderWay { counts: self, artifact, verb, began, took: None }
    }

    fn count(&self, artifact: Artifact, verb: Verb, figures: Figures, now: Duration) {
        let mut state = self.state.lock();
        state.counted.add(artifact, verb, figures);
        let minute = minute(now);
        let verbs = state.minutes.entry(minute).or_default();
        *verbs.entry(verb).or_default() += figures.requests;
        state.minutes = state.minutes.split_off(&oldest_minute(minute));
    }
}

fn minute(now: Duration) -> u64 {
    now.as_secs() / 60
}

/// The first of the minutes that end with this one.
fn oldest_minute(last: u64) -> u64 {
    let before = u64::try_from(MINUTES).expect("a small number") - 1;
    last.saturating_sub(before)
}

/// A request under way, counted when this drops.
pub(super) struct UnderWay<'a> {
    counts: &'a Counts,
    artifact: Artifact,
    verb: Verb,
    began: Duration,
    /// Requests, and bytes that they moved.
    took: Option<(u64, u64)>,
}

impl UnderWay<'_> {
    /// It was answered, took so many requests and moved these bytes.
    pub(super) fn answered(mut self, requests: u64, bytes: u64) {
        self.took = Some((requests, bytes));
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let now = self.counts.clock.elapsed();
        let micros = now.saturating_sub(self.began).as_micros();
        let (requests, bytes) = self.took.unwrap_or((1, 0));
        let figures = Figures {
            requests,
            bytes,
            errors: u64::from(self.took.is_none()),
            micros: u64::try_from(micros).unwrap_or(u64::MAX),
        };
        self.counts.count(self.artifact, self.verb, figures, now);
    }
}

/// Figures of one moment. What was never asked for is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    figures: BTreeMap<(Artifact, Verb), Figures>,
}

impl Snapshot {
    /// All figures, by artifact and verb.
    pub fn iter(&self) -> impl Iterator<Item = (Artifact, Verb, Figures)> {
        self.figures.iter().map(|((artifact, verb), figures)| (*artifact, *verb, *figures))
    }

    /// Those of one artifact and verb.
    #[must_use]
    pub fn get(&self, artifact: Artifact, verb: Verb) -> Figures {
        self.figures.get(&(artifact, verb)).copied().unwrap_or_default()
    }

    /// Those of a verb, whatever the artifact.
    #[must_use]
    pub fn of_verb(&self, verb: Verb) -> Figures {
        let all = Artifact::ALL.into_iter().map(|artifact| self.get(artifact, verb));
        all.fold(Figures::default(), Figures::plus)
    }

    fn add(&mut self, artifact: Artifact, verb: Verb, figures: Figures) {
        let sum = self.figures.entry((artifact, verb)).or_default();
        *sum = sum.plus(figures);
    }

    /// The snapshot as lines of text: a heading, then artifact, verb, requests, bytes, errors
    /// and microseconds.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADING}\n");
        for (artifact, verb, figures) in self.iter() {
            let Figures { requests, bytes, errors, micros } = figures;
            let (artifact, verb) = (artifact.as_str(), verb.as_str());
            writeln!(text, "{artifact} {verb} {requests} {bytes} {errors} {micros}")
                .expect("writing to a string cannot fail");
        }
        text
    }

    /// Reads what [`Snapshot::to_text`] wrote.
    ///
    /// # Errors
    /// It is something else, or damaged.
    pub fn from_text(text: &str) -> Result<Snapshot, BadSnapshot> {
        let mut lines = text.strip_suffix('\n').ok_or(BadSnapshot(0))?.split('\n').enumerate();
        if lines.next().is_none_or(|(_, heading)| heading != HEADING) {
            return Err(BadSnapshot(0));
        }
        let mut snapshot = Snapshot::default();
        for (number, line) in lines {
            let (kind, figures) = parse(line).ok_or(BadSnapshot(number))?;
            if snapshot.figures.insert(kind, figures).is_some() {
                return Err(BadSnapshot(number));
            }
        }
        Ok(snapshot)
    }
}

fn parse(line: &str) -> Option<((Artifact, Verb), Figures)> {
    let words: Vec<&str> = line.splitn(7, ' ').collect();
    let [artifact, verb, requests, bytes, errors, micros] = words[..] else { return None };
    let artifact = Artifact::ALL.into_iter().find(|it| it.as_str() == artifact)?;
    let verb = Verb::ALL.into_iter().find(|it| it.as_str() == verb)?;
    let figures = Figures {
        requests: requests.parse().ok()?,
        bytes: bytes.parse().ok()?,
        errors: errors.parse().ok()?,
        micros: micros.parse().ok()?,
    };
    Some(((artifact, verb), figures))
}

/// This text is no snapshot: the number of the first line that is wrong, from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0} of the counted requests cannot be read")]
pub struct BadSnapshot(usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Artifact, BadSnapshot, Figures, Snapshot, Verb};

    #[test]
    fn an_artifact_is_the_first_segment_of_a_key() {
        for (key, expect) in [
            ("segments/0-0.seg", Artifact::Segments),
            ("manifest/", Artifact::Manifest),
            ("gc/1", Artifact::Gc),
            ("manifest", Artifact::Other),
            ("manifests/1", Artifact::Other),
            ("x/manifest/1", Artifact::Other),
            ("", Artifact::Other),
        ] {
            assert_eq!(Artifact::of(key), expect, "{key}");
        }
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let good = "weir-requests 1\nrows get 1 2 3 4\n";
        assert_eq!(Snapshot::from_text(good).unwrap().to_text(), good);
        for (text, line) in [
            ("", 0),
            ("weir-requests 2\n", 0),
            ("weir-requests 1", 0),
            ("weir-requests 1\n\n", 1),
            ("weir-requests 1\nrows get 1 2 3\n", 1),
            ("weir-requests 1\nrows get 1 2 3 4 5\n", 1),
            ("weir-requests 1\nrows get 1 2 3 -4\n", 1),
            ("weir-requests 1\nrows got 1 2 3 4\n", 1),
            ("weir-requests 1\nrows get 1 2 3 4\nrows get 1 2 3 4\n", 2),
        ] {
            assert_eq!(Snapshot::from_text(text), Err(BadSnapshot(line)), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_snapshot_is_read_as_it_was_written(
            counted in prop::collection::vec((0..7_usize, 0..6_usize, any::<[u64; 4]>()), 0..50)
        ) {
            let mut snapshot = Snapshot::default();
            for (artifact, verb, [requests, bytes, errors, micros]) in counted {
                let figures = Figures { requests, bytes, errors, micros };
                snapshot.add(Artifact::ALL[artifact], Verb::ALL[verb], figures);
            }
            prop_assert_eq!(Snapshot::from_text(&snapshot.to_text()), Ok(snapshot));
        }

        #[test]
        fn no_text_is_too_strange_to_be_refused(text in "(weir-requests 1\n)?[a-z0-9 \n]*") {
            drop(Snapshot::from_text(&text));
        }
    }
}
