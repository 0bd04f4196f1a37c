//! `GET`: a page of records, now or when there is one.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue},
    http::request::Parts,
};
use weir_engine::{
    request::{From, Page, Read},
    types::{Form, Offset, OffsetFormat, Seq, StreamName},
};

use super::{Answer, after_existence, body::Body, long_poll, reply, sse};
use crate::{
    App,
    config::Auth,
    wire::{
        error::Refusal,
        etag, json, names,
        query::{Format, Live, ReadQuery},
    },
};

const SHARED: HeaderValue =
    HeaderValue::from_static("public, max-age=60, stale-while-revalidate=300");
const SHARED_FOR_EVER: HeaderValue =
    HeaderValue::from_static("public, max-age=31536000, immutable");
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const PRIVATE_FOR_EVER: HeaderValue =
    HeaderValue::from_static("private, max-age=31536000, immutable");

pub(super) async fn answer(
    app: &Arc<App>,
    parts: &Parts,
    name: StreamName,
    key: Option<Bytes>,
) -> Answer {
    let mut query = match ReadQuery::parse(parts.uri.query()) {
        Ok(query) => query,
        Err(refusal) => return Err(after_existence(app, &name, refusal).await),
    };
    // The key in the path wins over the one in the query.
    query.key = key.or(query.key);
    match query.live {
        Live::Off => catch_up(app, &parts.headers, name, &query).await,
        Live::LongPoll => long_poll::answer(app, &parts.headers, &name, &query).await,
        Live::Sse => sse::answer(app, &name, &query).await,
    }
}

async fn catch_up(
    app: &App,
    headers: &HeaderMap,
    name: StreamName,
    query: &ReadQuery<'_>,
) -> Answer {
    let from = query.from.unwrap_or(From::Start);
    let key = query.key.clone();
    let read = Read { name: name.clone(), from, key, bytes_max: app.config.read_bytes_max };
    let page = app.engine.read(read).await;
    let refuse = |error| Refusal::from_read(error, &name, from, app.config.offset_format);
    let page = page.map_err(refuse)?;
    check_format(&page, query.format)?;
    let reuse = reuse(&page, from, query.token.as_ref());
    Ok(describe(app, headers, page, query, reuse))
}

/// JSON was asked for, so there must be some.
pub(super) fn check_format(page: &Page, format: Option<Format>) -> Result<(), Refusal> {
    if format == Some(Format::Json) && page.form() != Form::Json {
        return Err(Refusal::bad_request("format=json requires an application/json stream"));
    }
    Ok(())
}

/// How long a page may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Not at all: it says where the stream was at one moment.
    Never,
    /// For a while, and after that if it has the same tag.
    Revalidate,
    /// Its bytes can never be others.
    ForEver,
}

/// A page is the same for ever if it ends before the tail, if its stream lets nothing go, and if it
/// was asked for by a token that the server minted and that names the epoch. The very first token is every stream's start,
/// whatever its epoch, so a name created again would answer it differently.
fn reuse(page: &Page, from: From, token: Option<&Cow<'_, str>>) -> Reuse {
    if from == From::Now || page.beyond_tail {
        return Reuse::Never;
    }
    let Some(token) = token.filter(|_| !page.up_to_date && page.records > 0) else {
        return Reuse::Revalidate;
    };
    let minted = |format| page.start.mint(format) == **token;
    if !page.retention.is_none() {
        return Reuse::Revalidate;
    }
    let own = page.start != Offset::START && page.next.next > Seq::ZERO;
    if own && (minted(OffsetFormat::Reference) || minted(OffsetFormat::Peer)) {
        Reuse::ForEver
    } else {
        Reuse::Revalidate
    }
}

/// A page as a response, or 304 if the client has it.
pub(super) fn describe(
    app: &App,
    request: &HeaderMap,
    page: Page,
    query: &ReadQuery<'_>,
    reuse: Reuse,
) -> Response<Body> {
    let tag = (reuse != Reuse::Never).then(|| etag::of(&page, query.key.as_deref(), query.format));
    let known = tag.as_ref().is_some_and(|tag| etag::matches(request, tag));
    let mut response = reply::empty(if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    let headers = response.headers_mut();
    if !known {
        reply::content_type(headers, &page.content);
    }
    position(app, headers, &page);
    headers.insert(CACHE_CONTROL, cache_control(app, reuse));
    if let Some(tag) = tag {
        headers.insert(ETAG, tag);
    }
    if !known {
        *response.body_mut() = body(page, query.format);
    }
    response
}

/// Where a page starts, ends, and what is there.
pub(super) fn position(app: &App, headers: &mut HeaderMap, page: &Page) {
    reply::next_offset(app, headers, page.next);
    reply::end_offset(app, headers, page.tail);
    if page.up_to_date {
        headers.insert(names::STREAM_UP_TO_DATE, names::TRUE);
    }
    reply::closed(headers, page.closed);
    reply::expires_at(headers, page.expiry);
}

fn cache_control(app: &App, reuse: Reuse) -> HeaderValue {
    let shared = matches!(app.config.auth, Auth::Open);
    match (reuse, shared) {
        (Reuse::Never, _) => names::NO_STORE,
        (Reuse::Revalidate, true) => SHARED,
        (Reuse::Revalidate, false) => PRIVATE,
        (Reuse::ForEver, true) => SHARED_FOR_EVER,
        (Reuse::ForEver, false) => PRIVATE_FOR_EVER,
    }
}

fn body(page: Page, format: Option<Format>) -> Body {
    match (page.form(), format) {
        (Form::Json, Some(Format::Raw)) => {
            Body::whole(json::without_separators(&page.pieces, page.bytes))
        }
        (Form::Json, _) => Body::joined(b"[", page.pieces, b"]"),
        (Form::Text | Form::Binary, _) => Body::joined(b"", page.pieces, b""),
    }
}

#[cfg(test)]
mod tests {
    use weir_engine::types::{ContentType, Epoch, Expiry, Retention};

    use super::*;

    fn page(epoch: u32, range: std::ops::Range<u64>, tail: u64) -> Page {
        let at = |next| Offset { epoch: Epoch::new(epoch), next: Seq::new(next) };
        Page {
            content: ContentType::octet_stream(),
            expiry: Expiry::Never,
            retention: Retention::NONE,
            start: at(range.start),
            next: at(range.end),
            tail: at(tail),
            up_to_date: range.end == tail,
            closed: false,
            beyond_tail: false,
            pieces: vec![],
            bytes: 0,
            records: range.end - range.start,
            incarnation: 7,
        }
    }

    #[test]
    fn only_complete_slices_behind_a_minted_token_are_kept_for_ever() {
        let check = |page: &Page, token: Option<&str>, expect| {
            let from =
                token.and_then(|token| Offset::parse(token).ok()).map_or(From::Start, From::At);
            assert_eq!(reuse(page, from, token.map(Cow::Borrowed).as_ref()), expect, "{token:?}");
        };
        let two = "0000000000000000_0000000000000004";
        check(&page(0, 2..5, 9), Some(two), Reuse::ForEver);
        check(&page(0, 2..5, 9), Some("00000000000000000010000000"), Reuse::ForEver);
        check(&page(0, 2..9, 9), Some(two), Reuse::Revalidate);
        check(&page(0, 2..5, 9), Some("0_4"), Reuse::Revalidate);
        check(&page(0, 2..5, 9), Some("0000000000000000_0000000000000005"), Reuse::Revalidate);
        check(&page(0, 0..5, 9), Some("0000000000000000_0000000000000000"), Reuse::Revalidate);
        check(&page(1, 0..5, 9), Some("0000000000000000_0000000000000000"), Reuse::Revalidate);
        check(&page(1, 0..5, 9), Some("0000000000000001_0000000000000000"), Reuse::ForEver);
        check(&page(0, 0..5, 9), Some("-1"), Reuse::Revalidate);
        check(&page(0, 0..5, 9), None, Reuse::Revalidate);
        let max_bytes = std::num::NonZeroU64::new(1);
        let retention = Retention { max_bytes, ..Retention::NONE };
        check(&Page { retention, ..page(0, 2..5, 9) }, Some(two), Reuse::Revalidate);
    }

    #[test]
    fn what_is_true_of_a_moment_is_not_kept() {
        assert_eq!(reuse(&page(0, 9..9, 9), From::Now, None), Reuse::Never);
        let beyond = Page { beyond_tail: true, ..page(0, 12..12, 9) };
        assert_eq!(reuse(&beyond, From::At(beyond.start), None), Reuse::Never);
    }

    #[test]
    fn tags_tell_pages_apart() {
        let tag = |page: &Page| etag::of(page, None, None);
        let base = page(0, 0..5, 9);
        for other in [
            page(0, 0..6, 9),
            page(0, 1..5, 9),
            page(0, 0..5, 5),
            page(1, 0..5, 9),
            Page { closed: true, ..page(0, 0..5, 9) },
            Page { incarnation: 8, ..page(0, 0..5, 9) },
        ] {
            assert_ne!(tag(&base), tag(&other), "{other:?}");
        }
        assert_ne!(tag(&base), etag::of(&base, Some(b"k"), None));
        let json = Page { content: ContentType::parse("application/json").expect("valid"), ..base };
        assert_ne!(tag(&json), etag::of(&json, None, Some(Format::Raw)));
    }
}
