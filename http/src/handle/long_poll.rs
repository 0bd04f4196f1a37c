//! `GET …?live=long-poll`: a page as soon as there is one.
//!
//! Every answer says the position that its own bytes reach and never one beyond, whatever is
//! appended meanwhile: the waiter's position moves only by what it read.

use std::sync::Arc;

use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, HeaderMap},
};
use tokio::time::{Instant, sleep_until};
use weir_engine::{
    Change,
    request::{From, Page},
    types::StreamName,
};

use super::{
    Answer,
    body::Body,
    read::{self, Reuse},
    reply::{self, Waited},
};
use crate::{
    App,
    app::Phase,
    metrics::Mode,
    wire::{error::Refusal, names, query::ReadQuery},
};

/// Why a wait ended without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Deadline,
    Closed,
    Draining,
}

pub(super) async fn answer(
    app: &Arc<App>,
    headers: &HeaderMap,
    name: &StreamName,
    query: &ReadQuery<'_>,
) -> Answer {
    let refuse = |error| Refusal::from_engine(error, app.config.offset_format);
    let wait = query.wait.unwrap_or(app.config.long_poll_timeout).min(app.config.long_poll_max);
    let deadline = Instant::now() + wait;
    let _counted = app.metrics.reader(Mode::LongPoll);
    let watch = app.engine.watch(name).await.map_err(refuse)?;
    let mut phase = app.phase.subscribe();
    let first = query.from.expect("the query demands a position of live reads");
    let mut from = first;
    loop {
        let page = watch.read(from, query.key.as_deref(), app.config.read_bytes_max).await;
        let refuse = |error| Refusal::from_read(error, name, from, app.config.offset_format);
        let page = page.map_err(refuse)?;
        read::check_format(&page, query.format)?;
        if page.records > 0 {
            return Ok(with_data(app, headers, page, first, query));
        }
        if page.closed {
            return Ok(without_data(app, query, &page, End::Closed));
        }
        from = From::At(page.next);
        let passed_over = !page.up_to_date && !page.beyond_tail;
        let change = tokio::select! {
            biased;
            // A keyed read that passed over its fill of other keys goes on at once.
            change = async { if passed_over { Change::Data } else { watch.changed(page.next).await } },
                if !passed_over || Instant::now() < deadline => change,
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => {
                return Ok(without_data(app, query, &page, End::Draining));
            }
            () = sleep_until(deadline) => {
                return Ok(without_data(app, query, &page, End::Deadline));
            }
        };
        match change {
            Change::Data => {}
            Change::Closed if page.beyond_tail => {
                return Ok(without_data(app, query, &page, End::Closed));
            }
            // Read once more: what came with the closure comes before it.
            Change::Closed => {}
            Change::Gone if app.is_draining() => {
                return Ok(without_data(app, query, &page, End::Draining));
            }
            Change::Gone => return Err(Refusal::not_found("not_found")),
        }
    }
}

fn with_data(
    app: &App,
    headers: &HeaderMap,
    page: Page,
    first: From,
    query: &ReadQuery<'_>,
) -> Response<Body> {
    // What `now` was is known to this request only.
    let reuse = if first == From::Now { Reuse::Never } else { Reuse::Revalidate };
    let mut response = read::describe(app, headers, page, query, reuse);
    let cursor = app.cursor(query.cursor);
    response.headers_mut().insert(names::STREAM_CURSOR, cursor.into());
    response
}

fn without_data(app: &App, query: &ReadQuery<'_>, page: &Page, end: End) -> Response<Body> {
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    response.extensions_mut().insert(Waited);
    let headers = response.headers_mut();
    read::position(app, headers, page);
    match end {
        End::Closed => {
            headers.insert(names::STREAM_UP_TO_DATE, names::TRUE);
            reply::closed(headers, true);
        }
        End::Deadline | End::Draining => {
            headers.insert(names::STREAM_CURSOR, app.cursor(query.cursor).into());
        }
    }
    headers.insert(CACHE_CONTROL, names::NO_STORE);
    response
}
