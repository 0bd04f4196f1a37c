//! `POST`: records, the end of the stream, or both.

use hyper::{Response, StatusCode, body::Incoming, header::HeaderMap, http::request::Parts};
use weir_engine::{
    request::{Append, AppendOutcome, Appended, Error, Rejection},
    types::StreamName,
};

use super::{Answer, after_existence, body::Body, inbound, reply};
use crate::{
    App,
    wire::{error::Refusal, names, request},
};

pub(super) async fn answer(
    app: &App,
    parts: &Parts,
    incoming: Incoming,
    name: StreamName,
) -> Answer {
    let inbound = match inbound::read(app, incoming).await {
        Ok(inbound) => inbound,
        Err(refusal) => return Err(after_existence(app, &name, refusal).await),
    };
    let append = match read_headers(&parts.headers, &name, inbound.bytes.clone()) {
        Ok(append) => append,
        Err(refusal) => return Err(after_existence(app, &name, refusal).await),
    };
    let stream_seq = append.stream_seq.clone();
    match app.engine.append(append).await {
        Ok(appended) => Ok(describe(app, &appended)),
        Err(error) => {
            let sequence = matches!(error, Error::Rejected(Rejection::StreamSeq { .. }));
            let refusal = Refusal::from_engine(error, app.config.offset_format);
            let received = parts.headers.get(names::STREAM_SEQ).filter(|_| stream_seq.is_some());
            Err(match received {
                Some(received) if sequence => {
                    refusal.with(names::STREAM_RECEIVED_SEQ, received.clone())
                }
                _ => refusal,
            })
        }
    }
}

fn read_headers(
    headers: &HeaderMap,
    name: &StreamName,
    body: bytes::Bytes,
) -> Result<Append, Refusal> {
    Ok(Append {
        name: name.clone(),
        // Whatever type a close-only request names is ignored.
        content: if body.is_empty() { None } else { request::content_type(headers)? },
        closing: request::closing(headers),
        producer: request::producer(headers)?,
        stream_seq: request::stream_seq(headers)?,
        expected: request::expected_offset(headers)?,
        key: request::key(headers)?,
        timestamp: request::timestamp(headers)?,
        body,
    })
}

fn describe(app: &App, appended: &Appended) -> Response<Body> {
    let status = match appended.outcome {
        AppendOutcome::Written if appended.producer.is_some() => StatusCode::OK,
        AppendOutcome::Written | AppendOutcome::Closed | AppendOutcome::Duplicate => {
            StatusCode::NO_CONTENT
        }
    };
    let mut response = reply::empty(status);
    let headers = response.headers_mut();
    reply::next_offset(app, headers, appended.next);
    reply::closed(headers, appended.closed);
    if let Some((epoch, seq)) = appended.producer {
        headers.insert(names::PRODUCER_EPOCH, epoch.into());
        headers.insert(names::PRODUCER_SEQ, seq.into());
    }
    headers.insert(names::STREAM_DURABILITY, names::LOCAL);
    response
}
