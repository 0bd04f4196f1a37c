//! Pure translation between HTTP text and the words of the engine. Nothing here reads a
//! socket, a clock or the environment; every parser is total: any input gives a value or a
//! [`error::Refusal`], never a panic.

pub(crate) mod base;
pub(crate) mod cursor;
pub(crate) mod date;
pub(crate) mod duration;
pub(crate) mod error;
pub(crate) mod escape;
pub(crate) mod etag;
pub(crate) mod hex;
pub(crate) mod json;
pub(crate) mod names;
pub(crate) mod query;
pub(crate) mod request;
pub(crate) mod resource;
pub(crate) mod retention;
pub(crate) mod route;
pub(crate) mod sse;
pub(crate) mod subscription;
