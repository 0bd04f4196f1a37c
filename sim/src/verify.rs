//! Taking answers apart: a page into records, a stream into the whole of what is known of it,
//! a list into what must and must not be there.

use bytes::Bytes;
use weir_engine::{
    request::{From, ListRow, Page},
    types::{Form, Offset, Seq, StreamName},
};

use crate::{
    checks::{self, Breach},
    model::{Fate, Mark, Model, Ticket},
    payload, require,
    workload::subscribers::WAKES,
};

/// Forks that may have cut a record on the way to one page.
const CUTS_MAX: u64 = 8;
/// The tail of a page that does not say where it is.
pub const TAIL_UNTOLD: Seq = Seq::LAST;

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
) -> Result<Vec<Mark>, Breach> {
    let name = &ticket.name;
    let epoch = page.tail.epoch.get();
    if page.tail.next == TAIL_UNTOLD {
        model.saw_life(ticket, epoch)?;
    } else {
        model.saw_tail(ticket, page.tail)?;
    }
    // A page that came over HTTP names no incarnation, no window and not its own start.
    let told = page.incarnation != 0;
    let placed = if told { None } else { placed(model, ticket, from, key, page)? };
    let page = placed.as_ref().unwrap_or(page);
    if told {
        model.life(name, epoch).expiry = Some(page.expiry);
    }
    let (start, next) = (page.start.next.get(), page.next.next.get());
    let tail = page.tail.next.get();
    if let From::At(offset) = from {
        if page.beyond_tail {
            let beyond = offset.epoch > page.tail.epoch || offset.next > page.tail.next;
            let empty = page.records == 0 && page.bytes == 0;
            require!(beyond && empty, checks::SAME, "'{name}' has nothing at {offset:?}");
            return Ok(Vec::new());
        }
        let meant = offset == Offset::START
            || model.lineage(name, epoch).is_none_or(|parts| means(&parts, offset, tail));
        require!(meant, checks::EPOCHS, "{offset:?} of '{name}' is answered under epoch {epoch}");
        require!(
            offset.next.get() == start,
            checks::DENSE,
            "asked '{name}' for {offset:?}, got {start}"
        );
    }
    // By key, or of what nobody knows, it is not told and can't be reckoned.
    let begins = told || (key.is_none() && !model.is_murky(name, epoch));
    if from == From::Start && begins {
        model.saw_earliest(ticket, epoch, start)?;
    }
    let begins = begins || from != From::Start;
    if from != From::Now && begins && ticket.newest == Some(epoch) {
        let earliest = ticket.earliest();
        require!(start >= earliest, checks::LIMITS, "'{name}' shows {start}, begins at {earliest}");
    }
    require!(start <= next && next <= tail, checks::DENSE, "page {start}..{next} of {tail}");
    let up = (page.up_to_date, page.closed);
    require!(
        up.0 == (next == tail),
        checks::LIVE,
        "'{name}' {next} of {tail} up to date: {}",
        up.0
    );
    minted(model, ticket, page)?;
    if model.is_murky(name, epoch) {
        return ends(model, ticket, page, Vec::new());
    }
    let seen = records(model, ticket, page, key.is_some())?;
    let count = u64::try_from(seen.len()).expect("small");
    let counted = count == page.records || (!told && key.is_some());
    require!(counted, checks::SENT, "{count} records, said to be {}", page.records);
    if key.is_some() {
        let start = match from {
            From::Start if !told => passed_over(model, ticket, key, &seen, (epoch, next))?,
            _ => Some(start),
        };
        keyed(model, ticket, key, &seen, (epoch, start, next))?;
    } else {
        in_place(model, ticket, page, &seen)?;
    }
    require!(next > start || next == tail, checks::SERVES, "'{name}' makes no progress at {start}");
    ends(model, ticket, page, seen)
}

/// Every record of a page lies where it was sent to, and the page has no gap.
fn in_place(model: &mut Model, ticket: &Ticket, page: &Page, seen: &[Mark]) -> Result<(), Breach> {
    let (name, epoch) = (&ticket.name, page.tail.epoch.get());
    let (start, next, tail) = (page.start.next.get(), page.next.next.get(), page.tail.next.get());
    let count = u64::try_from(seen.len()).expect("small");
    require!(count == next - start, checks::DENSE, "'{name}' {start}..{next} has {count} records");
    for (position, (request, index)) in (start..).zip(seen) {
        let first = position.checked_sub(u64::try_from(*index).expect("small"));
        let len = u64::try_from(model.requests[*request].records.len()).expect("small");
        // A fork may begin in the middle of a request to its source.
        let whole =
            model.requests[*request].name != *name || first.is_none_or(|first| first + len <= tail);
        require!(
            whole,
            checks::DURABLE,
            "'{name}' shows a part of request {request}: {first:?}+{len} of {tail}"
        );
        model.shown(name, epoch, position, (*request, *index))?;
    }
    Ok(())
}

/// Where a page starts whose start is not told: it was reckoned from its end and its records, among
/// which those that forks cut can't be counted. `None`: where it was reckoned.
fn placed(
    model: &Model,
    ticket: &Ticket,
    from: From,
    key: &Option<Bytes>,
    page: &Page,
) -> Result<Option<Page>, Breach> {
    let untold = !matches!(from, From::At(_)) && page.bytes > 0;
    if !untold || key.is_some() || model.is_murky(&ticket.name, page.tail.epoch.get()) {
        return Ok(None);
    }
    let mut first = None;
    for cut in 0..=CUTS_MAX {
        let Some(start) = page.start.next.get().checked_sub(cut) else { break };
        let start = Offset { next: Seq::new(start), ..page.start };
        let candidate = Page { start, records: page.records + cut, ..page.clone() };
        let seen = records(model, ticket, &candidate, false);
        let count = seen.as_ref().ok().and_then(|seen| u64::try_from(seen.len()).ok());
        if count == Some(candidate.records) {
            return Ok(Some(candidate));
        }
        first.get_or_insert(seen);
    }
    first.unwrap_or(Ok(Vec::new()))?;
    Breach::of(checks::SENT, format!("'{}' shows more than {} records", ticket.name, page.records))
}

/// The offsets of a page are of the epochs that count their positions.
fn minted(model: &Model, ticket: &Ticket, page: &Page) -> Result<(), Breach> {
    let name = &ticket.name;
    let Some(parts) = model.lineage(name, page.tail.epoch.get()) else { return Ok(()) };
    let start = if page.incarnation != 0 { page.start } else { page.next };
    let tail = if page.tail.next == TAIL_UNTOLD { page.next } else { page.tail };
    for offset in [start, page.next, tail] {
        let minted = parts.iter().rev().find(|(_, first)| *first <= offset.next.get());
        require!(
            minted.is_some_and(|(epoch, _)| *epoch == offset.epoch.get()),
            checks::EPOCHS,
            "'{name}' shows {offset:?}, its epochs are {parts:?}"
        );
    }
    Ok(())
}

/// What the end of a page says of the end of its stream.
fn ends(
    model: &mut Model,
    ticket: &Ticket,
    page: &Page,
    seen: Vec<Mark>,
) -> Result<Vec<Mark>, Breach> {
    if page.closed {
        model.saw_closed(ticket, page.tail)?;
    } else if page.up_to_date {
        model.saw_open(ticket, page.tail.epoch.get())?;
    }
    Ok(seen)
}

/// Whether an offset is a position of a life with these epochs and this tail.
#[must_use]
pub fn means(parts: &[(u32, u64)], offset: Offset, tail: u64) -> bool {
    let at = offset.next.get();
    let Some(index) = parts.iter().position(|(epoch, _)| *epoch == offset.epoch.get()) else {
        return false;
    };
    let limit = parts.get(index + 1).map_or(tail, |(_, first)| *first);
    (parts[index].1..=limit).contains(&at)
}

/// Takes the bytes of a page apart.
fn records(
    model: &Model,
    ticket: &Ticket,
    page: &Page,
    is_keyed: bool,
) -> Result<Vec<Mark>, Breach> {
    let (name, epoch) = (&ticket.name, page.tail.epoch.get());
    let whole = page.pieces.concat();
    require!(whole.len() == page.bytes, checks::SENT, "'{name}' page of {} bytes", page.bytes);
    let mut rest = &whole[..];
    let mut seen: Vec<Mark> = Vec::new();
    while !rest.is_empty() {
        if page.form() == Form::Json && !seen.is_empty() {
            require!(rest[0] == b',', checks::SENT, "'{name}' has no comma between messages");
            rest = &rest[1..];
        }
        let begins = |(request, index): Mark| {
            let sent = model.requests.get(request)?;
            let record = sent.records.get(index)?;
            let fits = model.may_show(name, epoch, &sent.name) && rest.starts_with(record);
            fits.then_some((request, index, record.len()))
        };
        let position = page.start.next.get() + u64::try_from(seen.len()).expect("small");
        let expected = if is_keyed { None } else { model.known(name, epoch, position) };
        let found = expected.and_then(begins).or_else(|| payload::mark(rest).and_then(begins));
        // One may begin as another one does: what comes behind it begins anew.
        let cut = || cuts(model, ticket, page, &seen).into_iter().filter_map(begins);
        let found = found.or_else(|| cut().max_by_key(|(_, _, len)| *len));
        let Some((request, index, len)) = found else {
            let shown = String::from_utf8_lossy(&rest[..rest.len().min(60)]).into_owned();
            let (start, next) = (page.start.next, page.next.next);
            let what = format!(
                "'{name}' {position} shows '{shown}', on a page {start}..{next} behind {seen:?}"
            );
            return Breach::of(checks::SENT, what);
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

/// Records that forks cut, in the range of a page: they may have lost what names them.
fn cuts(model: &Model, ticket: &Ticket, page: &Page, seen: &[Mark]) -> Vec<Mark> {
    let (name, epoch) = (&ticket.name, page.tail.epoch.get());
    let range = page.start.next.get()..page.next.next.get();
    let likely = range.filter_map(|position| model.likely(name, epoch, position));
    likely.filter(|mark| model.requests[mark.0].is_cut && !seen.contains(mark)).collect()
}

/// Where a page by key from the beginning begins that does not say it: what of the key it leaves out
/// before the first that it shows is gone. `None`: nobody knows where that lies.
fn passed_over(
    model: &mut Model,
    ticket: &Ticket,
    key: &Option<Bytes>,
    seen: &[Mark],
    (epoch, next): (u32, u64),
) -> Result<Option<u64>, Breach> {
    let name = &ticket.name;
    if !model.lets_go(name, epoch) {
        return Ok(Some(0));
    }
    let known = |at: &u64| model.known(name, epoch, *at);
    let first = match seen.first() {
        None => next,
        Some(shown) => match (0..next).find(|at| known(at) == Some(*shown)) {
            Some(first) => first,
            None => return Ok(None),
        },
    };
    let has_key = |at: &u64| known(at).is_some_and(|(id, _)| model.requests[id].key == *key);
    let start = (0..first).rev().find(has_key).map_or(0, |last| last + 1);
    let known = ticket.earliest_of(epoch);
    if start > known {
        model.saw_omitted(ticket, epoch, start)?;
    }
    Ok(Some(start.max(known)))
}

/// Every record has the key, they come in order, and none that is known to lie there is missing.
fn keyed(
    model: &Model,
    ticket: &Ticket,
    key: &Option<Bytes>,
    seen: &[Mark],
    (epoch, start, next): (u32, Option<u64>, u64),
) -> Result<(), Breach> {
    let name = &ticket.name;
    for (request, _) in seen {
        let has = &model.requests[*request].key;
        require!(has == key, checks::KEYED, "'{name}' asked for {key:?}, got one of {has:?}");
    }
    let Some(start) = start else { return Ok(()) };
    let known: Vec<_> = (start..next).map(|at| model.known(name, epoch, at)).collect();
    let expect: Vec<Mark> = known
        .iter()
        .flatten()
        .filter(|(request, _)| model.requests[*request].key == *key)
        .copied()
        .collect();
    // Records that the model does not know the place of yet may come in between.
    let mut rest = seen.iter();
    let all = expect.iter().all(|record| rest.any(|it| it == record));
    require!(all, checks::KEYED, "'{name}' {start}..{next} by {key:?}: {seen:?}, scan: {expect:?}");
    let whole = known.iter().all(Option::is_some);
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
pub fn whole(model: &mut Model, name: &StreamName, tail: Offset) -> Result<(), Breach> {
    let (epoch, next) = (tail.epoch.get(), tail.next.get());
    if model.is_murky(name, epoch) || model.stems_from_untold(name, epoch) {
        return Ok(());
    }
    let has_limits = model.has_limits(name);
    let life = model.life(name, epoch);
    let len = u64::try_from(life.records.len()).expect("small");
    require!(
        len <= next,
        checks::FOLDED,
        "'{name}' epoch {epoch} ends at {next}, {len} records were seen"
    );
    if life.origin.as_ref().is_some_and(|origin| origin.point.is_none()) {
        if has_limits {
            // What it wrote first may be gone.
            return Ok(());
        }
        // Nobody was told where this fork begins to differ: at what it wrote first.
        let own = life.records.iter().position(Option::is_some);
        let point = own.map_or(Ok(next), u64::try_from).expect("small");
        weir_io::sometimes!("a fork that nobody was told of was there after a restart");
        model.forked(name, epoch, point)?;
    }
    let begins = model.life(name, epoch).earliest;
    let mut last = None;
    for position in begins..next {
        let Some((request, index)) = model.known(name, epoch, position) else {
            return Breach::of(
                checks::SEALED,
                format!("'{name}' has a hole at {epoch}_{position}"),
            );
        };
        let request = &model.requests[request];
        let seq = request.stream_seq.filter(|_| index == 0 && request.name == *name);
        if seq.is_some() {
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
    if page.incarnation == 0 && model.is_murky(name, epoch) {
        // Nobody knows where such a page starts.
        return Ok(());
    }
    // What comes first may be what is left.
    if let Some(before) = start.checked_sub(1).filter(|_| !model.lets_go(name, epoch))
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
    for row in rows.iter().filter(|row| row.head.name.as_str() != WAKES) {
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
