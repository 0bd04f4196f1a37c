//! `…/_profile` and `…/_schema`: what a stream means and what its records must look like.
//!
//! To look at a stream does not extend its life.

use hyper::{Method, Response, StatusCode, body::Incoming};
use weir_engine::types::StreamName;

use crate::{
    App,
    handle::{Answer, after_existence, body::Body, inbound, reply},
    wire::{error::Refusal, resource},
};

/// Longest body of an update.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Profile,
    Schema,
}

pub(in crate::handle) async fn resource(
    app: &App,
    method: &Method,
    incoming: Incoming,
    name: &StreamName,
    which: Resource,
) -> Answer {
    match *method {
        Method::GET | Method::HEAD => {}
        Method::POST => {
            // Whether the stream exists is told before the body is criticised.
            let inbound = inbound::read_up_to(app, incoming, BODY_BYTES_MAX).await;
            let judged = inbound.and_then(|inbound| which.judge(&inbound.bytes));
            if let Err(refusal) = judged {
                return Err(after_existence(app, name, refusal).await);
            }
        }
        _ => return Err(Refusal::method_not_allowed("GET, HEAD, POST, OPTIONS")),
    }
    let refuse = |error| Refusal::from_engine(error, app.config.offset_format);
    app.engine.head(name).await.map_err(refuse)?;
    Ok(which.show(name))
}

impl Resource {
    fn judge(self, body: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Profile => resource::judge_profile(body),
            Self::Schema => resource::judge_schema(body),
        }
    }

    fn show(self, name: &StreamName) -> Response<Body> {
        let value = match self {
            Self::Profile => resource::profile(),
            Self::Schema => resource::schema(name),
        };
        reply::json(StatusCode::OK, value.to_string())
    }
}
