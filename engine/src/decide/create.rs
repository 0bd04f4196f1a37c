//! Creating a stream that may be there already (protocol §4.2), forks included.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Now, Verdict, expiry};
use crate::{
    limits,
    log::entry,
    request::{Create, CreateOutcome, Prepared, Rejection},
    state::stream::{Identity, StreamState},
    types::{
        Ancestry, Closing, Epoch, Expiry, Form, Lineage, Place, Records, Seq, StreamId, WallMs,
    },
};

/// The entries of a new stream: its creation, then what it begins with, if anything.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) create: entry::Create,
    pub(crate) writes: SmallVec<[entry::Write; 1]>,
}

/// A record of a source that a sub-offset may cut: bytes, key and timestamp.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) at: Seq,
    pub(crate) record: Bytes,
    pub(crate) key: Option<Bytes>,
    pub(crate) timestamp: WallMs,
}

/// Decides a creation where a stream that is alive, or kept for its forks, has the name.
pub(crate) fn over_existing(
    identity: &Identity,
    state: &StreamState,
    create: &Create,
) -> Result<CreateOutcome, Rejection> {
    if state.retired {
        return Err(Rejection::NameKept);
    }
    let content = match &create.content {
        Some(content) => identity.content.matches(content),
        None => identity.fork.is_some() || identity.content.matches(&create.content()),
    };
    let expiry = match (create.expiry, &identity.fork) {
        (Some(expiry), _) => identity.expiry == expiry,
        (None, Some(fork)) => fork.expiry_inherited,
        (None, None) => identity.expiry == Expiry::Never,
    };
    let same = content
        && expiry
        && state.kept.retention == create.retention
        && state.closed.is_some() == (create.closing == Closing::Close)
        && same_fork(identity, state, create);
    if same { Ok(CreateOutcome::Existing) } else { Err(Rejection::ConfigurationDiffers) }
}

fn same_fork(identity: &Identity, state: &StreamState, create: &Create) -> bool {
    let (known, asked) = match (&identity.fork, &create.fork) {
        (None, None) => return true,
        (Some(known), Some(asked)) => (known, asked),
        _ => return false,
    };
    // Named in the same way, or in another that means the same to the fork.
    let means = |offset| state.lineage.place(offset, known.at) == Place::At(known.anchor);
    let point = asked.at == known.asked || asked.at.is_some_and(means);
    point && known.source_name == asked.source && known.sub_offset == asked.sub_offset
}

/// What a new stream will be known by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) stream: StreamId,
    /// The epoch its name was last used under.
    pub(crate) last: Option<Epoch>,
    /// The first epoch that was never used before the store was last recovered.
    pub(crate) floor: Epoch,
}

/// Decides a creation where no stream has the name.
pub(crate) fn over_nothing(
    Named { stream, last, floor }: Named,
    create: &Create,
    prepared: Prepared,
    now: Now,
) -> Result<Verdict<CreateOutcome, Birth>, Rejection> {
    let records = prepared?;
    let epoch = last.map_or(Epoch::ZERO, |last| Epoch::new(last.get() + 1)).max(floor);
    let expiry = create.expiry.unwrap_or(Expiry::Never);
    let born = entry::Create {
        stream,
        name: create.name.clone(),
        content: create.content(),
        expiry,
        lineage: Lineage::starting(epoch),
        created: now.wall,
        deadline: expiry::deadline(expiry, now.store),
        last_append: WallMs::ZERO,
        fork: None,
        retention: create.retention,
        earliest: Seq::ZERO,
        oldest: None,
    };
    Ok(born_with(born, None, create, records, now))
}

/// Decides a fork of `source` where no stream has the name. `cut`: the record at the fork point,
/// if the request has a sub-offset that may lie within it.
pub(crate) fn fork(
    Named { stream, last, floor }: Named,
    (source, state): (&Identity, &StreamState),
    create: &Create,
    cut: Option<&Cut>,
    prepared: Prepared,
    now: Now,
) -> Result<Verdict<CreateOutcome, Birth>, Rejection> {
    let asked = create.fork.as_ref().expect("called for forks");
    if create.content.as_ref().is_some_and(|content| !content.matches(&source.content)) {
        return Err(Rejection::ContentTypeDiffers);
    }
    let anchor = match asked.at.map(|offset| state.lineage.place(offset, state.next)) {
        None => state.next,
        Some(Place::At(seq)) => seq,
        Some(Place::Beyond) => return Err(Rejection::ForkPoint("beyond the source's tail")),
        Some(Place::Lost(_)) => {
            return Err(Rejection::ForkPoint("in an epoch that the source has left behind"));
        }
    };
    if anchor < state.kept.earliest {
        return Err(Rejection::ForkPoint("before the earliest record that the source keeps"));
    }
    let form = source.content.form();
    let (at, cut) = point(form, anchor, asked.sub_offset, state.next, cut)?;
    let depth = source.fork.as_ref().map_or(0, |above| above.depth) + 1;
    if depth > limits::FORK_DEPTH_MAX {
        return Err(Rejection::ForkDepth);
    }
    let runs = Ancestry::runs_before(at, source.id, source.fork.as_deref());
    let ancestry = Ancestry {
        source: source.id,
        source_name: source.name.clone(),
        at,
        asked: asked.at,
        anchor,
        depth,
        sub_offset: asked.sub_offset,
        expiry_inherited: create.expiry.is_none(),
        runs: runs.ok_or(Rejection::ForkDepth)?,
    };
    let records = prepared?;
    let expiry = create.expiry.unwrap_or(source.expiry);
    let born = entry::Create {
        stream,
        name: create.name.clone(),
        content: source.content.clone(),
        expiry,
        lineage: state.lineage.inherited(at, last, floor),
        created: now.wall,
        deadline: expiry::deadline(expiry, now.store),
        last_append: match &cut {
            Some(cut) => cut.timestamp,
            // The source's last is an upper bound for what is inherited.
            None if at > Seq::ZERO => state.last_append,
            None => WallMs::ZERO,
        },
        fork: Some(Arc::new(ancestry)),
        retention: create.retention,
        earliest: state.kept.earliest,
        oldest: state.kept.oldest.filter(|_| at > state.kept.earliest),
    };
    Ok(born_with(born, cut, create, records, now))
}

/// The first position that is the fork's own, and what of the record there it begins with.
fn point(
    form: Form,
    anchor: Seq,
    sub_offset: u64,
    tail: Seq,
    cut: Option<&Cut>,
) -> Result<(Seq, Option<Cut>), Rejection> {
    const BEYOND: Rejection = Rejection::ForkPoint("sub-offset beyond the source's tail");
    if sub_offset == 0 {
        return Ok((anchor, None));
    }
    if form == Form::Json {
        // Every message is a record of its own.
        let at = anchor.get().checked_add(sub_offset).map(Seq::new).ok_or(BEYOND)?;
        return if at <= tail { Ok((at, None)) } else { Err(BEYOND) };
    }
    let cut = cut.filter(|cut| cut.at == anchor && anchor < tail).ok_or(BEYOND)?;
    match usize::try_from(sub_offset) {
        Ok(bytes) if bytes < cut.record.len() => {
            Ok((anchor, Some(Cut { record: cut.record.slice(..bytes), ..cut.clone() })))
        }
        Ok(bytes) if bytes == cut.record.len() => Ok((anchor.after(1), None)),
        _ => Err(Rejection::ForkPoint("sub-offset beyond the record at the fork offset")),
    }
}

/// What a new stream begins with: a cut record, then the request's own.
fn born_with(
    born: entry::Create,
    cut: Option<Cut>,
    create: &Create,
    records: Option<Records>,
    now: Now,
) -> Verdict<CreateOutcome, Birth> {
    let mut writes = SmallVec::new();
    let own_start = born.fork.as_ref().map_or(Seq::ZERO, |fork| fork.at);
    let blank = entry::Write {
        stream: born.stream,
        first: own_start,
        records: None,
        timestamp: now.wall.max(born.last_append),
        key: None,
        closes: false,
        producer: None,
        introduces: false,
        stream_seq: None,
        deadline: born.deadline,
    };
    if let Some(Cut { record, key, timestamp, .. }) = cut {
        let records = Some(Records::one(record));
        writes.push(entry::Write { records, timestamp, key, ..blank.clone() });
    }
    let closes = create.closing == Closing::Close;
    if records.is_some() || closes {
        let first = own_start.after(u64::try_from(writes.len()).expect("one at most"));
        let key = create.key.clone();
        writes.push(entry::Write { first, records, key, closes, ..blank });
    }
    Verdict { answer: CreateOutcome::New, change: Some(Birth { create: born, writes }) }
}
