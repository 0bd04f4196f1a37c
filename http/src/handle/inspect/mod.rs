//! `GET …/_details`, `…/_index_status`, `…/_profile`, `…/_schema`, `GET /v1/server/_details` and
//! `…/_mem`, in the peer's fields.
//!
//! The first two carry a tag and can wait until they have another. What would change it although
//! nothing happened to the stream (the clock, and the database, the segments and the bucket that all
//! streams share) is left out of the tag. To look at a stream does not extend its life.

mod bucket;
mod high_water;
mod memory;
mod resource;
mod server;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue},
    http::request::Parts,
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use weir_engine::{
    inspect::{Details, Inspection, Revision},
    request::Error,
    types::StreamName,
};

use super::{
    Answer, after_existence,
    body::Body,
    reply::{self, Waited},
};
use crate::{
    App,
    app::Phase,
    metrics::Mode,
    wire::{
        error::Refusal,
        etag,
        hex::hex,
        names,
        query::{self, Live},
    },
};

pub(crate) use self::high_water::HighWater;
pub(super) use self::resource::{Resource, resource};

/// What of a stream is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Details,
    IndexStatus,
}

/// A document about a stream.
struct Document {
    value: Value,
    /// The value that no longer stands for the same stream when its revision is another.
    revision: Revision,
    /// In quotes, without the mark of a weak tag.
    tag: HeaderValue,
}

/// The server as a whole.
pub(super) fn server(app: &App) -> Response<Body> {
    reply::json(StatusCode::OK, server::document(app).to_string())
}

/// What the server has in memory.
pub(super) fn memory(app: &App) -> Response<Body> {
    reply::json(StatusCode::OK, memory::document(app).to_string())
}

/// One stream; waits, if asked to, until there is something new.
pub(super) async fn stream(app: &Arc<App>, parts: &Parts, name: &StreamName, part: Part) -> Answer {
    let (live, wait) = match query::parse_wait(parts.uri.query()) {
        Ok(query) => query,
        Err(refusal) => return Err(after_existence(app, name, refusal).await),
    };
    let refuse = |error| Refusal::from_engine(error, app.config.offset_format);
    let inspection = app.engine.inspect(name).await.map_err(refuse)?;
    let mut document = part.document(app, &inspection).await.map_err(refuse)?;
    if live == Live::Off {
        return Ok(describe(&parts.headers, document));
    }
    let wait = wait.unwrap_or(app.config.long_poll_timeout).min(app.config.long_poll_max);
    let deadline = Instant::now() + wait;
    let _counted = app.metrics.reader(Mode::Inspection);
    let mut phase = app.phase.subscribe();
    while etag::matches(&parts.headers, &document.tag) {
        tokio::select! {
            biased;
            () = inspection.changed(document.revision) => {}
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => break,
            () = sleep_until(deadline) => break,
        }
        document = part.document(app, &inspection).await.map_err(refuse)?;
    }
    let mut response = describe(&parts.headers, document);
    response.extensions_mut().insert(Waited);
    Ok(response)
}

impl Part {
    async fn document(self, app: &App, inspection: &Inspection) -> Result<Document, Error> {
        match self {
            Self::Details => {
                let details = inspection.details().await?;
                let revision = details.revision;
                let mut value = stream::details(&details);
                let tag = tag("details", &value);
                stream::add_shared(&mut value, &details);
                stream::add_passing(&mut value, &details, app);
                Ok(Document { value, revision, tag })
            }
            Self::IndexStatus => {
                let status = inspection.index_status()?;
                let mut value = stream::index_status(&status);
                // The document has counts of shared segments; what of them is the stream's own is how
                // far it is sealed and published.
                let tag = tag("index_status", &json!([value, stream::reach(&status)]));
                stream::add_files(&mut value, &status);
                Ok(Document { value, revision: status.revision, tag })
            }
        }
    }
}

/// `_details` and `_index_status` of a stream, but for what belongs to the process that answers: its
/// clock's view of windows, its database and its requests to the bucket.
pub(crate) fn answers(details: &Details) -> [Value; 2] {
    let mut whole = stream::details(details);
    stream::add_shared(&mut whole, details);
    let index = whole["index_status"].clone();
    [whole, index]
}

/// The tag of a document: not a secret, and as long as the peer's.
fn tag(what: &str, value: &Value) -> HeaderValue {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, value.to_string().as_bytes());
    let tag = Bytes::from(format!("\"{what}:{}\"", hex(hash.as_ref())));
    HeaderValue::from_maybe_shared(tag).expect("visible ASCII")
}

/// A document as a response, or 304 if the client has it.
fn describe(request: &HeaderMap, document: Document) -> Response<Body> {
    let mut response = if etag::matches(request, &document.tag) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        reply::json(StatusCode::OK, document.value.to_string())
    };
    let weak = Bytes::from([b"W/", document.tag.as_bytes()].concat());
    let weak = HeaderValue::from_maybe_shared(weak).expect("visible ASCII");
    let headers = response.headers_mut();
    headers.insert(ETAG, weak);
    headers.insert(CACHE_CONTROL, names::NO_STORE);
    response
}
