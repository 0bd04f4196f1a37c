//! The new era: after the tail is folded, every stream's positions from its recovered tail on are
//! counted under epochs that were never used (INV-42), every subscription's wakes under
//! generations that never were, and no cursor points beyond what was restored.

use rusqlite::Connection;
use weir_io::{Sabotage, World};

use super::{
    RestoreError, blocking,
    build::open_tables,
    claim::era_floor,
    failure,
    report::{CURSOR, Finding, Report},
};
use crate::{
    Config,
    state::{
        catalogue::{self, Failure},
        rows::StreamRow,
    },
    subscribe::{
        links::Stored,
        request::LinkType,
        rows::{self as subscriptions, LinkRow, SubscriptionRow},
    },
    types::{Epoch, Offset},
};

/// Streams changed in one transaction.
const STREAMS_AT_ONCE: usize = 1000;

/// Begins the era of `report.recoveries`.
pub(super) async fn settle(
    world: &World,
    config: &Config,
    report: &mut Report,
) -> Result<(), RestoreError> {
    let (shared, config, recoveries) = (world.clone(), config.clone(), report.recoveries);
    let done = blocking(world, move || {
        let mut conn = open_tables(&shared, &config)?;
        let recoveries = recoveries - u32::from(shared.sabotage == Sabotage::OldEra);
        let streams = raise(&mut conn, Epoch::first_of(recoveries)).map_err(failure)?;
        let clamped = subscribe(&mut conn, era_floor(recoveries)).map_err(failure)?;
        Ok((streams, clamped))
    });
    let (streams, clamped) = done.await?;
    report.streams = streams;
    report.findings.extend(clamped);
    Ok(())
}

/// Raises the epoch of every stream. Returns how many there are.
fn raise(conn: &mut Connection, floor: Epoch) -> Result<u64, Failure> {
    let mut from = String::new();
    let mut count = 0;
    loop {
        let rows = catalogue::list(conn, &from, STREAMS_AT_ONCE)?;
        let whole = rows.len() < STREAMS_AT_ONCE;
        if let Some(last) = rows.last() {
            from = format!("{}\0", last.identity.name);
        }
        let tx = conn.transaction()?;
        for mut row in rows {
            row.state.lineage.raise(floor, row.state.next);
            let newest = row.state.lineage.newest();
            assert_eq!(newest.era(), floor.era(), "INV-42 an era has epochs of its own");
            let next = row.state.tail().epoch;
            assert_eq!(next, newest, "INV-49 what was lost meets nothing new: it is counted anew");
            catalogue::put_stream(&tx, &row)?;
            count += 1;
        }
        tx.commit()?;
        if whole {
            return Ok(count);
        }
    }
}

/// Begins new generations of wakes and puts cursors back that are beyond a recovered tail.
fn subscribe(conn: &mut Connection, floor: u64) -> Result<Vec<Finding>, Failure> {
    let mut rows: Vec<SubscriptionRow> = Vec::new();
    catalogue::scan_subscriptions(conn, |row| {
        rows.push(row);
        Ok(())
    })?;
    let mut links: Vec<LinkRow> = Vec::new();
    catalogue::scan_links(conn, |link| {
        links.push(link);
        Ok(())
    })?;
    let mut findings = Vec::new();
    let tx = conn.transaction()?;
    for mut row in rows {
        // Reports of wakes that the bucket never saw must meet none of those to come (INV-26).
        row.control.generation = row.control.generation.max(floor);
        let config = &row.config;
        let body = subscriptions::encode_subscription(config, row.created, row.born, &row.control);
        catalogue::put_subscription(&tx, row.number, &config.id, row.lsn, &body)?;
    }
    for link in links {
        let Some(stream) = link.link.stream() else { continue };
        let row = catalogue::find_id(&tx, stream)?;
        let Some((next, text)) = clamped(&link.link, row.as_ref()) else { continue };
        weir_io::sometimes!("a bootstrap put a cursor back");
        let LinkRow { number, path, lsn, .. } = link;
        let object = format!("subscription {number}, '{path}'");
        findings.push(Finding::new(CURSOR, object, text));
        catalogue::put_link(&tx, number, &path, next.as_ref(), lsn)?;
    }
    tx.commit()?;
    Ok(findings)
}

/// What becomes of a link that points beyond its stream, and why; `None`: it does not. The inner
/// `None`: it is not kept.
fn clamped(link: &Stored, stream: Option<&StreamRow>) -> Option<(Option<Stored>, String)> {
    let explicit = link.kind() == LinkType::Explicit;
    let Some(row) = stream else {
        let waiting = Stored::new(link.kind(), None, Offset::START, Offset::START);
        return Some((explicit.then_some(waiting), "its stream is lost".into()));
    };
    let tail = row.state.tail();
    if link.acked().next <= tail.next && link.tail().next <= tail.next {
        return None;
    }
    let within = |offset: Offset| if offset.next > tail.next { tail } else { offset };
    let (acked, seen) = (within(link.acked()), within(link.tail()));
    let next = Stored::new(link.kind(), link.stream(), acked, seen);
    let kept = explicit || next.tail() > next.acked();
    let text = format!("it was at record {}, the stream ends at {}", link.acked().next, tail.next);
    Some((kept.then_some(next), text))
}
