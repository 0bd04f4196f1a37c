//! Appending, closing, or both: the ladder of checks of protocol §19, each of which leaves no
//! trace when it refuses.

use super::{Now, Verdict, expiry, producer, producer::Turn};
use crate::{
    admit::rejection_of_nothing,
    log::entry::Write,
    request::{Append, AppendOutcome, Appended, Prepared, Rejection},
    state::stream::{ClosedBy, Identity, Producer, StreamState},
    types::{Closing, Lineage, Offset, Place, ProducerTuple, Seq},
};

/// Decides one append on an open or closed stream that has not expired. `known` is the state of
/// the request's producer, `prepared` its body.
pub(crate) fn decide(
    identity: &Identity,
    state: &StreamState,
    known: Option<&Producer>,
    append: &Append,
    prepared: Prepared,
    now: Now,
) -> Result<Verdict<Appended, Write>, Rejection> {
    let closes = append.closing == Closing::Close;
    let close_only = append.body.is_empty();
    if close_only && !closes {
        return Err(Rejection::EmptyBody);
    }
    if !close_only && append.content.is_none() {
        return Err(Rejection::ContentTypeMissing);
    }
    if let Some(closed) = &state.closed {
        return on_closed(state, closed, known, append).map(Verdict::unchanged);
    }
    if !close_only && append.content.as_ref().is_some_and(|it| !it.matches(&identity.content)) {
        return Err(Rejection::ContentTypeDiffers);
    }
    let records = match prepared? {
        None if !close_only => return Err(rejection_of_nothing(&append.body)),
        records => records,
    };
    if let Some(tuple) = &append.producer {
        if producer::decide(known, tuple)? == Turn::Duplicate {
            let known = known.expect("only a known producer repeats itself");
            return Ok(Verdict::unchanged(duplicate(state, known, tuple, false)));
        }
        let full = state.producers >= crate::limits::PRODUCERS_PER_STREAM_MAX;
        if known.is_none() && full {
            return Err(Rejection::TooManyProducers(identity.name.clone()));
        }
    }
    check_expected(append.expected, &state.lineage, state)?;
    check_stream_seq(append, state)?;

    let count = records.as_ref().map_or(0, crate::types::Records::count);
    let next = state.next.after(count);
    let answer = Appended {
        outcome: if count == 0 { AppendOutcome::Closed } else { AppendOutcome::Written },
        next: state.lineage.offset(next),
        closed: closes,
        producer: append.producer.as_ref().map(|tuple| (tuple.epoch, tuple.seq)),
    };
    let hint = append.timestamp.unwrap_or(now.wall);
    let write = Write {
        stream: identity.id,
        first: state.next,
        records,
        timestamp: state.last_append.max(hint.min(now.wall)),
        key: append.key.clone(),
        closes,
        producer: append.producer.clone(),
        introduces: append.producer.is_some() && known.is_none(),
        stream_seq: append.stream_seq.clone(),
        deadline: expiry::deadline(identity.expiry, now.store),
    };
    Ok(Verdict { answer, change: Some(write) })
}

/// A closed stream takes nothing, but repeats what it answered when it was closed.
fn on_closed(
    state: &StreamState,
    closed: &ClosedBy,
    known: Option<&Producer>,
    append: &Append,
) -> Result<Appended, Rejection> {
    let repeats_closing = append.producer.is_some() && append.producer == closed.producer;
    if let (true, Some(tuple), Some(known)) = (repeats_closing, &append.producer, known) {
        return Ok(duplicate(state, known, tuple, true));
    }
    if append.producer.is_none() && append.body.is_empty() {
        return Ok(Appended {
            outcome: AppendOutcome::Closed,
            next: state.tail(),
            closed: true,
            producer: None,
        });
    }
    Err(Rejection::Closed { tail: state.tail() })
}

fn duplicate(
    state: &StreamState,
    known: &Producer,
    tuple: &ProducerTuple,
    closed: bool,
) -> Appended {
    let end: Seq = known.end_of(tuple.seq).unwrap_or(state.next);
    Appended {
        outcome: AppendOutcome::Duplicate,
        next: state.lineage.offset(end),
        closed,
        producer: Some((known.epoch, known.seq)),
    }
}

/// Whether the stream ends where whoever asks says that it does.
pub(crate) fn check_expected(
    expected: Option<Offset>,
    lineage: &Lineage,
    state: &StreamState,
) -> Result<(), Rejection> {
    match expected.map(|offset| lineage.place(offset, state.next)) {
        None => Ok(()),
        Some(Place::At(seq)) if seq == state.next => Ok(()),
        Some(_) => Err(Rejection::ExpectedOffset { tail: state.tail() }),
    }
}

fn check_stream_seq(append: &Append, state: &StreamState) -> Result<(), Rejection> {
    match (&append.stream_seq, &state.stream_seq) {
        (Some(seq), Some(last)) if seq <= last => {
            Err(Rejection::StreamSeq { last: last.clone(), tail: state.tail() })
        }
        _ => Ok(()),
    }
}
