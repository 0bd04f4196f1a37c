//! The door: turns request bodies into records, before anything is queued.
//!
//! Pure and total: any bytes yield records or a [`Rejection`](crate::request::Rejection).
//! Knows no stream state and does no I/O. What passes here is never looked into again:
//! everything below treats records as opaque bytes in wire form.

mod json;
mod prepare;

pub(crate) use prepare::{prepare, rejection_of_nothing};

#[cfg(test)]
mod tests;
