//! What every bucket promises while it is healthy.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use bytes::Bytes;

use crate::objects::{Created, Key, Meta, ObjectError, Objects, Payload, Pending, Prefixed};

/// Writers that race for one key.
const RACERS: usize = 8;
/// Bytes of the largest object here: several reads and writes of a socket.
const LARGE: usize = 300_000;

/// Every law, in a bucket that is empty and becomes so again.
pub async fn all(bucket: &Arc<dyn Objects>) {
    an_object_is_created_once_and_never_changes(&**bucket).await;
    of_many_creations_of_one_key_one_is_new(&**bucket).await;
    an_object_may_be_empty_or_large_and_come_in_pieces(&**bucket).await;
    a_range_is_exact_or_refused(&**bucket).await;
    a_read_is_bounded(&**bucket).await;
    what_is_not_there_is_missing_and_nothing_else(&**bucket).await;
    a_deleted_object_is_gone_and_its_key_is_free(&**bucket).await;
    a_listing_is_in_the_order_of_keys_page_by_page(&**bucket).await;
    below_a_prefix_is_a_bucket_of_its_own(bucket).await;
    assert!(ok(bucket.list("", None, 10).await).is_empty(), "every law cleans up");
}

async fn an_object_is_created_once_and_never_changes(bucket: &dyn Objects) {
    let key = key("once/a");
    assert_eq!(create(bucket, &key, "first").await, Created::New);
    let meta = ok(bucket.head(&key).await).expect("it was created");
    assert_eq!((&meta.key, meta.size), (&key, 5));
    assert_eq!(create(bucket, &key, "second").await, Created::AlreadyThere);
    assert_eq!(create(bucket, &key, "first").await, Created::AlreadyThere);
    assert_eq!(ok(bucket.get(&key, 100).await), "first");
    assert_eq!(ok(bucket.head(&key).await), Some(meta));
    clean(bucket, &[key]).await;
}

async fn of_many_creations_of_one_key_one_is_new(bucket: &dyn Objects) {
    for round in 0..5 {
        let key = key(&format!("race/{round}"));
        let bodies: Vec<Bytes> = (0..RACERS).map(|n| Bytes::from(format!("racer {n}"))).collect();
        let racers = bodies.iter().map(|body| bucket.create(&key, body.clone().into()));
        let ends: Vec<Created> = together(racers.collect()).await.into_iter().map(ok).collect();
        let won: Vec<&Bytes> = ends
            .iter()
            .zip(&bodies)
            .filter(|(end, _)| **end == Created::New)
            .map(|it| it.1)
            .collect();
        assert_eq!(won.len(), 1, "one winner");
        assert_eq!(ok(bucket.get(&key, 100).await), won[0], "and the object is the winner's");
        clean(bucket, &[key]).await;
    }
}

async fn an_object_may_be_empty_or_large_and_come_in_pieces(bucket: &dyn Objects) {
    let large: Bytes = (0..LARGE).map(|n| u8::try_from(n % 251).expect("below 256")).collect();
    let pieces =
        vec![large.slice(..1), large.slice(1..1), large.slice(1..70_000), large.slice(70_000..)];
    for (name, payload, expect) in [
        ("empty", Payload::from(Bytes::new()), Bytes::new()),
        ("no-pieces", Payload::default(), Bytes::new()),
        ("large", Payload::from(large.clone()), large.clone()),
        ("pieces", Payload::from(pieces), large.clone()),
    ] {
        let key = key(&format!("sizes/{name}"));
        assert_eq!(ok(bucket.create(&key, payload).await), Created::New);
        assert_eq!(ok(bucket.get(&key, 1 << 20).await), expect, "{name}");
        let meta = ok(bucket.head(&key).await).expect("it was created");
        assert_eq!(meta.size, u64::try_from(expect.len()).expect("lengths fit 64 bits"));
        clean(bucket, &[key]).await;
    }
}

async fn a_range_is_exact_or_refused(bucket: &dyn Objects) {
    let key = key("range/a");
    create(bucket, &key, "0123456789").await;
    for (range, expect) in [(0..10, "0123456789"), (0..1, "0"), (9..10, "9"), (3..7, "3456")] {
        assert_eq!(ok(bucket.get_range(&key, range).await), expect);
    }
    for range in [0..11, 9..11, 10..11, 10..10, 99..100, 5..5] {
        let said = bucket.get_range(&key, range.clone()).await;
        assert!(matches!(said, Err(ObjectError::Refused(_))), "{range:?}: {said:?}");
    }
    clean(bucket, &[key]).await;
}

async fn a_read_is_bounded(bucket: &dyn Objects) {
    let key = key("bounded/a");
    create(bucket, &key, "0123456789").await;
    assert_eq!(ok(bucket.get(&key, 10).await), "0123456789");
    let said = bucket.get(&key, 9).await;
    assert!(matches!(said, Err(ObjectError::Refused(_))), "{said:?}");
    clean(bucket, &[key]).await;
}

async fn what_is_not_there_is_missing_and_nothing_else(bucket: &dyn Objects) {
    let missing = key("missing/a");
    let beside = key("missing/ab");
    create(bucket, &beside, "beside").await;
    for key in [&missing, &key("missing"), &key("nowhere/b/c"), &key("missing/ab-c")] {
        assert_eq!(bucket.get(key, 10).await, Err(ObjectError::NotFound), "{key}");
        assert_eq!(bucket.get_range(key, 0..1).await, Err(ObjectError::NotFound), "{key}");
        assert_eq!(ok(bucket.head(key).await), None, "{key}");
        ok(bucket.delete(key).await);
    }
    assert_eq!(ok(bucket.get(&beside, 10).await), "beside");
    clean(bucket, &[beside]).await;
}

async fn a_deleted_object_is_gone_and_its_key_is_free(bucket: &dyn Objects) {
    let key = key("deleted/a");
    create(bucket, &key, "first").await;
    ok(bucket.delete(&key).await);
    ok(bucket.delete(&key).await);
    assert_eq!(bucket.get(&key, 10).await, Err(ObjectError::NotFound));
    assert_eq!(ok(bucket.head(&key).await), None);
    assert!(ok(bucket.list("deleted/", None, 10).await).is_empty());
    assert_eq!(create(bucket, &key, "second").await, Created::New);
    assert_eq!(ok(bucket.get(&key, 10).await), "second");
    clean(bucket, &[key]).await;
}

async fn a_listing_is_in_the_order_of_keys_page_by_page(bucket: &dyn Objects) {
    // `-` and `.` sort before `/`, digits and letters after it.
    let sorted =
        ["l-x", "l.x", "l/a-b/1", "l/a.b", "l/a/1", "l/a/2", "l/a/c/3", "l/a0", "l/b", "lx"];
    let keys = sorted.map(key);
    for name in keys.iter().rev() {
        create(bucket, name, "some").await;
    }
    for (prefix, after, limit, expect) in [
        ("", None, 100, &sorted[..]),
        ("l", None, 100, &sorted),
        ("l/", None, 100, &sorted[2..9]),
        ("l/a", None, 100, &sorted[2..8]),
        ("l/a/", None, 100, &sorted[4..7]),
        ("l/a/1", None, 100, &sorted[4..5]),
        ("l/c", None, 100, &[]),
        ("m", None, 100, &[]),
        ("", None, 3, &sorted[..3]),
        ("", Some("l/a/1"), 3, &sorted[5..8]),
        ("l/", Some("l/a"), 2, &sorted[2..4]),
        ("l/", Some("l/a/1"), 100, &sorted[5..9]),
        ("l/", Some("l/a/1-not-there"), 100, &sorted[5..9]),
        ("l/", Some("l/b"), 100, &[]),
        ("l/", Some("a"), 1, &sorted[2..3]),
        ("l/", Some("z"), 100, &[]),
    ] {
        let after = after.map(key);
        let found = ok(bucket.list(prefix, after.as_ref(), limit).await);
        let names: Vec<&str> = found.iter().map(|meta| meta.key.as_str()).collect();
        assert_eq!(names, expect, "{prefix:?} after {after:?}");
        assert!(found.iter().all(|meta| meta.size == 4));
    }
    clean(bucket, &keys).await;
}

async fn below_a_prefix_is_a_bucket_of_its_own(bucket: &Arc<dyn Objects>) {
    let [one, two] = ["p/1", "p/2"].map(|prefix| Prefixed::new(Arc::clone(bucket), key(prefix)));
    let name = key("dir/a");
    create(&one, &name, "one").await;
    create(&two, &name, "two").await;
    create(&one, &key("other"), "some").await;
    assert_eq!(ok(one.get(&name, 10).await), "one");
    assert_eq!(ok(bucket.get(&key("p/2/dir/a"), 10).await), "two");
    assert_eq!(ok(one.head(&name).await).map(|meta: Meta| meta.key), Some(name.clone()));
    let listed = ok(one.list("", Some(&name), 10).await);
    assert_eq!(listed.into_iter().map(|meta| meta.key).collect::<Vec<_>>(), [key("other")]);
    clean(&one, &[name.clone(), key("other")]).await;
    assert!(ok(one.list("", None, 10).await).is_empty());
    clean(&two, &[name]).await;
}

async fn create(bucket: &dyn Objects, key: &Key, text: &'static str) -> Created {
    ok(bucket.create(key, text.into()).await)
}

async fn clean(bucket: &dyn Objects, keys: &[Key]) {
    for key in keys {
        ok(bucket.delete(key).await);
    }
}

/// Runs all of them at once, in this task.
async fn together<T>(mut under_way: Vec<Pending<'_, T>>) -> Vec<Result<T, ObjectError>> {
    let mut ended: Vec<Option<Result<T, ObjectError>>> = under_way.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (one, end) in under_way.iter_mut().zip(&mut ended) {
            if end.is_none()
                && let Poll::Ready(result) = Pin::new(one).poll(context)
            {
                *end = Some(result);
            }
        }
        if ended.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ended.into_iter().flatten().collect()
}

fn key(text: &str) -> Key {
    Key::new(text).expect("the keys of laws are keys")
}

#[track_caller]
fn ok<T>(result: Result<T, ObjectError>) -> T {
    result.expect("a healthy bucket serves this")
}
