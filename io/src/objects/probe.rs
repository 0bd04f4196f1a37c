//! Whether a bucket fences: the second creation of a key must be refused.
//!
//! Two servers on one bucket are told apart by create-if-absent alone, and some services
//! accept the condition and ignore it. So it is tried out before a server trusts a bucket.

use crate::{
    Entropy,
    objects::{Created, Key, ObjectError},
    retry::{Outcome, Retrying},
};

/// Where probes are left while they run. A crash may leave one for ever; it is a few bytes.
const PROBES: &str = "probe";

/// Why a bucket must not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Two creations of one key were both told that theirs is the object.
    #[error(
        "the bucket ignores create-if-absent: it let a second writer replace an object, so two \
         servers could destroy each other's data"
    )]
    NoFence,
    /// It refuses to create an object on the condition that there is none.
    #[error(
        "the bucket can't create an object only if there is none ({0}), and without that two servers \
         could destroy each other's data: use a service with conditional writes (If-None-Match), or \
         another --object-store"
    )]
    Unconditional(String),
    /// What was created reads as something else.
    #[error("the bucket returned other bytes than it was given")]
    Wrong,
    /// The bucket could not be asked.
    #[error("the bucket cannot be used")]
    Error(#[source] ObjectError),
}

impl From<ObjectError> for Unfit {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Unconditional(reason) => Self::Unconditional(reason),
            other => Self::Error(other),
        }
    }
}

/// Creates one key twice, reads it back and deletes it.
///
/// # Errors
/// The bucket let both creations succeed, lost the first one's bytes, or did not answer.
pub async fn probe(bucket: &Retrying, entropy: &dyn Entropy) -> Result<(), Unfit> {
    let key = format!("{PROBES}/{:016x}{:016x}", entropy.next_u64(), entropy.next_u64());
    let key = Key::new(key).expect("hexadecimal digits are a key");
    let judged = judge(bucket, &key).await;
    if let Err(Unfit::Unconditional(_)) = judged {
        // There is nothing to delete, and what else may be wrong says less.
        return judged;
    }
    let deleted = bucket.delete(&key).await;
    judged?;
    // A bucket that cannot delete would grow for ever.
    Ok(deleted?)
}

async fn judge(bucket: &Retrying, key: &Key) -> Result<(), Unfit> {
    let (first, second) = ("the first writer", "the second writer");
    if bucket.create_confirmed(key, &first.into()).await? != Created::New {
        // Nobody else can know the key, so the object is ours with other bytes.
        return Err(Unfit::Wrong);
    }
    match bucket.create(key, &second.into()).await? {
        Outcome::Created => return Err(Unfit::NoFence),
        // Either refused twice, or taken by the first attempt; the bytes will tell.
        Outcome::AlreadyThere | Outcome::Ambiguous => {}
    }
    let found = bucket.get(key, 64).await?;
    if found == second {
        return Err(Unfit::NoFence);
    }
    if found != first { Err(Unfit::Wrong) } else { Ok(()) }
}
