//! History: segments whose bytes lie in the bucket, and their copies on the local disk.

mod bucket;

pub(crate) use bucket::Bucket;
