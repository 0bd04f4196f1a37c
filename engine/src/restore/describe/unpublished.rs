//! What a store has that no manifest of its own is known to show: what is lost with the disk, and
//! what a store that was overtaken has alone.
//!
//! Told from its tables, its log and its own files, and nothing is opened for writing: a store that
//! may not serve any more can be looked at. A merged segment may hold records that were published
//! too: rather too much is shown than too little.

use std::path::PathBuf;

use bytes::Bytes;
use weir_io::{World, sqlite::Role};

use super::{
    enough, find_stream,
    item::{Each, Flow, Item, hex, number, option},
    log::Commits,
    part, rows,
};
use crate::{
    Config,
    core::{database, segment_path},
    ledger::Row,
    log::commit::Link,
    motion::publish::chain,
    segment::Segment,
    state::{
        catalogue::{self, Failure},
        files::Cut,
    },
    types::{Lsn, SegmentId, StreamId},
};

/// Shows the streams that changed, the records and the commits that the newest manifest of this
/// store does not show.
///
/// # Errors
/// There is no store, or its tables can't be read; says which.
pub fn unpublished(world: &World, config: &Config, each: Each<'_>) -> Result<Flow, String> {
    let path = database(config);
    if !world.disk.exists(&path).unwrap_or(false) {
        return Err(format!("there is no store in {}", config.dir.display()));
    }
    let conn = world.sqlite.open(&path, Role::Looker);
    let conn = conn.map_err(|error| format!("{}: {error}", path.display()))?;
    // All of it at one moment.
    let tx =
        conn.unchecked_transaction().map_err(|error| format!("{}: {error}", path.display()))?;
    look(world, config, &tx, each).map_err(|error| format!("{}: {error}", path.display()))
}

fn look(
    world: &World,
    config: &Config,
    conn: &rusqlite::Connection,
    each: Each<'_>,
) -> Result<Flow, Failure> {
    let published = chain::published(conn)?.map(|stored| stored.manifest);
    let none = Link { lsn: Lsn::ZERO, crc: 0 };
    let (folded, through) =
        published.as_ref().map_or((none.lsn, none.lsn), |it| (it.folded.lsn, it.through.lsn));
    let cut = Cut::load(conn)?.map_or(none.lsn, |cut| cut.folded.lsn);
    let head = Item::head(
        "store",
        vec![
            ("store", hex(&catalogue::meta(conn, "store")?.unwrap_or_default())),
            ("published", option(published.as_ref(), |it| number(it.generation.get()))),
            ("published_through", number(through.get())),
            ("sealed_through", number(cut.get())),
        ],
    );
    if each(head).is_break() {
        return Ok(Flow::Break(()));
    }
    let mut flow = Flow::Continue(());
    let scanned = catalogue::scan_streams(conn, |row| {
        if row.state.lsn > through {
            let row = Row::Stream(Box::new(row));
            flow = each(Item::entry("stream", rows::row(&row)));
        }
        if flow.is_break() { Err(enough()) } else { Ok(()) }
    });
    if flow.is_break() {
        return Ok(flow);
    }
    scanned?;
    let find = |id: StreamId| find_stream(conn, id);
    let mut commits = Commits::new(&find);
    for (id, opened) in segments(world, config, conn, folded)? {
        let shown = match opened {
            Ok(segment) => records(&segment, &mut commits, each),
            Err(why) => each(Item::damage(format!("segment {id}"), why)),
        };
        if shown.is_break() {
            return Ok(shown);
        }
    }
    let scanned = catalogue::scan_log(conn, through, |_, bytes| {
        flow = commits.commit(&Bytes::from(bytes), each);
        if flow.is_break() { Err(enough()) } else { Ok(()) }
    });
    if flow.is_continue() {
        scanned?;
    }
    Ok(flow)
}

type Opened = (SegmentId, Result<Segment, String>);

/// The segments that end behind what was folded when the last manifest was made, in order, and
/// those that can't be opened.
fn segments(
    world: &World,
    config: &Config,
    conn: &rusqlite::Connection,
    folded: Lsn,
) -> Result<Vec<Opened>, Failure> {
    let mut found = Vec::new();
    for row in catalogue::segments(conn)? {
        let path: PathBuf = segment_path(config, row.id);
        let opened = world.disk.open(&path).map_err(|error| error.to_string());
        let opened = opened.and_then(|file| Segment::salvage(file).map_err(|bad| bad.to_string()));
        let opened = opened.map(|(segment, _)| segment);
        match opened {
            Ok(segment) if segment.footer().last_lsn <= folded => {}
            opened => found.push((row.id, opened)),
        }
    }
    found.sort_by_key(|(id, opened)| {
        let ends = opened.as_ref().map(Segment::footer);
        (ends.map_or((Lsn::ZERO, Lsn::ZERO), |it| (it.last_lsn, it.first_lsn)), *id)
    });
    Ok(found)
}

fn records(segment: &Segment, commits: &mut Commits<'_>, each: Each<'_>) -> Flow {
    for no in segment.blocks() {
        let block = match segment.block(no) {
            Ok(block) => block,
            Err(bad) => {
                let what = format!("block {} of segment {}", no.index(), segment.id());
                each(Item::damage(what, bad))?;
                continue;
            }
        };
        for it in block.parts() {
            let from = commits.unshown(it.stream());
            if from >= it.limit() {
                continue;
            }
            let known = commits.stream(it.stream());
            part(it, known.as_ref().map(|it| it.name.as_str()), from, each)?;
            commits.showed(it.stream(), it.limit());
        }
    }
    Flow::Continue(())
}
