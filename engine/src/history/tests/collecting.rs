//! What waits for its collection, and since when.

use super::*;
use crate::{motion::publish::Chain, state::catalogue};

impl Town {
    /// Objects that the catalogue names no more.
    async fn drop_objects(&self, count: usize) {
        let dropped = self.engine.core.on_writer("a test", move |conn| {
            (0..count).try_for_each(|at| catalogue::put_garbage(conn, &format!("segments/{at}")))
        });
        dropped.await.expect("the store runs").expect("writes");
    }

    /// How many of them have not begun to wait.
    async fn unretired(&self) -> usize {
        let found = self.engine.core.on_reader(|conn| catalogue::unretired(conn, "", 100_000));
        found.await.expect("reads").len()
    }
}

#[test]
fn all_that_a_manifest_does_not_name_begins_to_wait_with_it() {
    live(config(), async |town| {
        town.uploaded("s", 1).await;
        town.drop_objects(2500).await;
        town.uploaded("t", 1).await;
        assert_eq!(town.unretired().await, 0);
    });
}

#[test]
fn what_a_process_left_undone_is_made_up_for_by_the_next_without_a_request() {
    live(config(), async |town| {
        town.uploaded("s", 1).await;
        town.drop_objects(2500).await;
        // A start knows the manifest and not yet whether it shows what there is.
        match &mut *town.engine.core.chain.lock().await {
            Chain::Attached(state) => state.version = None,
            Chain::Unattached | Chain::Fenced(_) => panic!("it has published"),
        }
        let before = town.machine.bucket().requests();
        town.publish().await;
        assert_eq!(town.unretired().await, 0);
        assert_eq!(town.machine.bucket().requests(), before);
    });
}
