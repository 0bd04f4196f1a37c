//! Taking answers apart: a page into records, a stream into the whole of what is known of it,
//! a list into what must and must not be there.

use bytes::Bytes;
use weir_engine::{
    request::{From, ListRow, Page},
    types::{Form, Offset, StreamName},
};

use crate::{
    checks::{self, Breach},
    model::{Fate, Model, Ticket},
    payload, require,
};

/// A record of a page: which request's, which of its records.
pub type Seen = (usize, usize);

/// Checks a page against the model and adds to it what the page shows.
///
/// # Errors
/// The page contradicts something.
pub fn page(
    model: &mut Model,
    ticket: &Ticket,
    from: From,
    key: &Option<Bytes>,
    page: &Page,
) -> Result<Vec<Seen>, Breach> {
    let name = &ticket.name;
    let epoch = page.tail.epoch.get();
    model.saw_tail(ticket, page.tail)?;
    model.life(name, epoch).expiry = Some(page.expiry);
    let seen = records(model, ticket, page)?;
    let (start, next) = (page.start.next.get(), page.next.next.get());
    let tail = page.tail.next.get();
    if let From::At(offset) = from {
        if page.beyond_tail {
            let beyond = offset.epoch > page.tail.epoch || offset.next > page.tail.next;
            require!(beyond && seen.is_empty(), checks::SAME, "'{name}' has nothing at {offset:?}");
            return Ok(seen);
        }
        let meant = offset == Offset::START || offset.epoch == page.tail.epoch;
        require!(meant, checks::EPOCHS, "{offset:?} of '{name}' is answered under epoch {epoch}");
        require!(
            offset.next.get() == start,
            checks::DENSE,
            "asked '{name}' for {offset:?}, got {start}"
        );
    }
    if from == From::Start {
        require!(start == 0, checks::DENSE, "'{name}' starts at {start}");
    }
    require!(start <= next && next <= tail, checks::DENSE, "page {start}..{next} of {tail}");
    let up = (page.up_to_date, page.closed);
    require!(
        up.0 == (next == tail),
        checks::LIVE,
        "'{name}' {next} of {tail} up to date: {}",
        up.0
    );
    let count = u64::try_from(seen.len()).expect("small");
    require!(count == page.records, checks::SENT, "{count} records, said to be {}", page.records);
    if key.is_some() {
        keyed(model, ticket, key, &seen, (epoch, start, next))?;
    } else {
        require!(
            count == next - start,
            checks::DENSE,
            "'{name}' {start}..{next} has {count} records"
        );
        for (position, (request, index)) in (start..).zip(&seen) {
            let index = u64::try_from(*index).expect("small");
            let first = position.checked_sub(index);
            let Some(first) = first else {
                return Breach::of(checks::DENSE, format!("'{name}' {position} is record {index}"));
            };
            let len = u64::try_from(model.requests[*request].records.len()).expect("small");
            require!(
                first + len <= tail,
                checks::DURABLE,
                "'{name}' shows a part of request {request}: {first}+{len} of {tail}"
            );
            model.place(*request, epoch, first)?;
        }
    }
    require!(next > start || next == tail, checks::SERVES, "'{name}' makes no progress at {start}");
    if page.closed {
        model.saw_closed(ticket, page.tail)?;
    } else if page.up_to_date {
        model.saw_open(ticket, epoch)?;
    }
    Ok(seen)
}

/// Takes the bytes of a page apart.
fn records(model: &Model, ticket: &Ticket, page: &Page) -> Result<Vec<Seen>, Breach> {
    let name = &ticket.name;
    let whole = page.pieces.concat();
    require!(whole.len() == page.bytes, checks::SENT, "'{name}' page of {} bytes", page.bytes);
    let mut rest = &whole[..];
    let mut seen = Vec::new();
    while !rest.is_empty() {
        if page.form() == Form::Json && !seen.is_empty() {
            require!(rest[0] == b',', checks::SENT, "'{name}' has no comma between messages");
            rest = &rest[1..];
        }
        let found = payload::mark(rest).and_then(|(request, index)| {
            let sent = model.requests.get(request)?;
            let record = sent.records.get(index)?;
            (sent.name == *name && rest.starts_with(record)).then_some((
                request,
                index,
                record.len(),
            ))
        });
        let Some((request, index, len)) = found else {
            let shown = String::from_utf8_lossy(&rest[..rest.len().min(60)]).into_owned();
            return Breach::of(checks::SENT, format!("'{name}' shows '{shown}'"));
        };
        require!(
            model.requests[request].fate != Fate::Refused,
            checks::TRACE,
            "'{name}' shows request {request}, which was refused or lost"
        );
        seen.push((request, index));
        rest = &rest[len..];
    }
    Ok(seen)
}

/// Every record has the key, they come in order, and none that is known to lie there is missing.
fn keyed(
    model: &Model,
    ticket: &Ticket,
    key: &Option<Bytes>,
    seen: &[Seen],
    (epoch, start, next): (u32, u64, u64),
) -> Result<(), Breach> {
    let name = &ticket.name;
    for (request, _) in seen {
        let has = &model.requests[*request].key;
        require!(has == key, checks::KEYED, "'{name}' asked for {key:?}, got one of {has:?}");
    }
    let Some(life) = model.names.get(name).and_then(|named| named.lives.get(&epoch)) else {
        return Ok(());
    };
    let range = usize::try_from(start).expect("short")..usize::try_from(next).expect("short");
    let known = life.records.get(range.start..range.end.min(life.records.len())).unwrap_or(&[]);
    let expect: Vec<Seen> = known
        .iter()
        .flatten()
        .filter(|(request, _)| model.requests[*request].key == *key)
        .copied()
        .collect();
    // Records that the model does not know the place of yet may come in between.
    let mut rest = seen.iter();
    let all = expect.iter().all(|record| rest.any(|it| it == record));
    require!(all, checks::KEYED, "'{name}' {start}..{next} by {key:?}: {seen:?}, scan: {expect:?}");
    let whole = known.len() == range.len() && known.iter().all(Option::is_some);
    require!(
        !whole || expect == seen,
        checks::KEYED,
        "'{name}' {start}..{next} by {key:?}: {seen:?}, scan: {expect:?}"
    );
    Ok(())
}

/// After a read of everything: each position is known, and `Stream-Seq` rises with them.
///
/// # Errors
/// Something is missing.
pub fn whole(model: &Model, name: &StreamName, tail: Offset) -> Result<(), Breach> {
    let epoch = tail.epoch.get();
    let next = usize::try_from(tail.next.get()).expect("short");
    let Some(life) = model.names.get(name).and_then(|named| named.lives.get(&epoch)) else {
        return Ok(());
    };
    require!(
        life.records.len() <= next,
        checks::FOLDED,
        "'{name}' epoch {epoch} ends at {next}, {} records were seen",
        life.records.len()
    );
    let mut last = None;
    for (position, known) in life.records.iter().enumerate() {
        let Some((request, index)) = known else {
            return Breach::of(
                checks::SEALED,
                format!("'{name}' has a hole at {epoch}_{position}"),
            );
        };
        let seq = model.requests[*request].stream_seq;
        if seq.is_some() && *index == 0 {
            require!(last < seq, checks::TRACE, "'{name}' took Stream-Seq {seq:?} after {last:?}");
            last = seq;
        }
    }
    Ok(())
}

/// The start of a `since` read: what lies before is older, what it shows is not.
///
/// # Errors
/// It is not.
pub fn since(
    model: &Model,
    ticket: &Ticket,
    since: u64,
    page: &Page,
    tail: u64,
) -> Result<(), Breach> {
    let name = &ticket.name;
    let (epoch, start) = (page.tail.epoch.get(), page.start.next.get());
    if let Some(before) = start.checked_sub(1)
        && let Some((earliest, _)) = model.timestamp(name, epoch, before)
    {
        require!(
            earliest < since,
            checks::TIMES,
            "'{name}' since {since} starts at {start}, but {before} is of {earliest} or later"
        );
    }
    if start < tail
        && let Some((_, latest)) = model.timestamp(name, epoch, start)
    {
        require!(
            latest >= since,
            checks::TIMES,
            "'{name}' since {since} starts at {start}, which is of {latest} or earlier"
        );
    }
    Ok(())
}

/// A list that was asked for with these tickets, one per known name.
///
/// # Errors
/// A stream is missing, out of order, or not alive.
pub fn list(
    model: &mut Model,
    tickets: &[Ticket],
    rows: &[ListRow],
    now_ms: u64,
) -> Result<(), Breach> {
    let sorted = rows.windows(2).all(|pair| pair[0].head.name < pair[1].head.name);
    require!(sorted, checks::LISTED, "the list is not in order");
    for row in rows {
        let name = &row.head.name;
        let Some(ticket) = tickets.iter().find(|ticket| ticket.name == *name) else {
            return Breach::of(checks::LISTED, format!("'{name}' is listed and unknown"));
        };
        model.saw_tail(ticket, row.head.next)?;
        let sealed = row.sealed_through;
        require!(
            sealed.next <= row.head.next.next,
            checks::DENSE,
            "'{name}' is sealed through {sealed:?} beyond its tail"
        );
    }
    for ticket in tickets {
        let listed = rows.iter().any(|row| row.head.name == ticket.name);
        if let (Some(epoch), false) = (model.must_live(ticket, now_ms), listed) {
            let what = format!("'{}' epoch {epoch} lives and is not listed", ticket.name);
            return Breach::of(checks::LISTED, what);
        }
    }
    Ok(())
}
