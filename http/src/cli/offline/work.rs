//! The commands without a server, done by the engine.

use std::{io::Write, path::Path, sync::Arc};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use weir_engine::{
    Config, Engine as Store,
    restore::{self, Existing as Over, Finding, Losses as Rest, Options, RestoreError, Thing},
    types::WallMs,
    verify::{self, Checked, Findings},
};
use weir_io::World;

use super::{
    Depth, Engine, Existing, Format, Losses, Place, Report, Restore, Showing, Verdict,
    flags::{Moment, Stored},
    garbage,
    shown::Printer,
};
use crate::{ObjectStore, local::SQLITE_MAGIC, wire::date};

/// The largest file that is shown; the largest segment is smaller.
const SHOWN_BYTES_MAX: u64 = 1 << 30;

/// The engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work;

impl Engine for Work {
    async fn bootstrap(
        &self,
        world: &World,
        place: &Place,
        bucket: &ObjectStore,
        restore: Restore,
        format: Format,
    ) -> anyhow::Result<Report> {
        match self::bootstrap(world, &place.data, bucket, restore).await {
            Ok(report) => Ok(restored(&report, Outcome::Restored, format)),
            Err(RestoreError::Damaged(report)) => Ok(restored(&report, Outcome::Refused, format)),
            Err(error) => Err(error.into()),
        }
    }

    async fn check_bootstrap(
        &self,
        world: &World,
        bucket: &ObjectStore,
        at: Option<Moment>,
        format: Format,
    ) -> anyhow::Result<Report> {
        let objects = Arc::clone(&bucket.objects);
        let report = Store::check_bootstrap(world.clone(), objects, moment(at)).await?;
        Ok(restored(&report, Outcome::Looked, format))
    }

    async fn verify(
        &self,
        world: &World,
        place: &Place,
        bucket: Option<&ObjectStore>,
        depth: Depth,
        format: Format,
    ) -> anyhow::Result<Report> {
        let config = match place.one_file(world) {
            Some(dir) => Config::one_file(dir),
            None => Config::new(place.data.join("store")),
        };
        self::verify(world, config, bucket, depth, format).await
    }

    async fn inspect(
        &self,
        world: &World,
        what: Stored,
        place: &Path,
        showing: Showing,
        out: &mut dyn Write,
    ) -> anyhow::Result<Report> {
        let mut printer = Printer::new(out, showing);
        let mut each = |item| printer.show(item);
        // Whether whoever looks has seen enough makes no difference any more.
        let _flow = match what {
            Stored::Log => restore::describe_log(world, place, &mut each),
            Stored::Unpublished => {
                let store = place.join("store");
                let within = world.disk.exists(&store).unwrap_or(false);
                let config = Config::new(if within { store } else { place.to_owned() });
                restore::unpublished(world, &config, &mut each).map_err(anyhow::Error::msg)?
            }
            Stored::Segment | Stored::Manifest | Stored::Rows => {
                restore::describe(&read(world, what, place)?, &mut each)
            }
        };
        Ok(Report { verdict: printer.end()?, text: String::new() })
    }

    async fn garbage(
        &self,
        world: &World,
        bucket: &ObjectStore,
        format: Format,
    ) -> anyhow::Result<Report> {
        let garbage = restore::garbage(world, Arc::clone(&bucket.objects)).await?;
        let text = match format {
            Format::Text => garbage::text(&garbage),
            Format::Json => garbage::json(&garbage),
        };
        Ok(Report { verdict: verdict(&garbage.unreadable), text })
    }
}

/// The bytes of a file, if it is what it is said to be.
fn read(world: &World, what: Stored, file: &Path) -> anyhow::Result<Bytes> {
    let shown = || file.display().to_string();
    let open = world.disk.open(file).with_context(shown)?;
    let len = open.len().with_context(shown)?;
    let mut start = [0; SQLITE_MAGIC.len()];
    let is_sqlite = open.read_exact_at(&mut start, 0).is_ok() && start == *SQLITE_MAGIC;
    anyhow::ensure!(
        !is_sqlite,
        "{} is a SQLite file: `weir inspect log` shows its commits, `weir verify` looks at what \
         else is in it",
        shown()
    );
    anyhow::ensure!(len <= SHOWN_BYTES_MAX, "{} has {len} bytes: too many", shown());
    let mut bytes = vec![0; usize::try_from(len)?];
    open.read_exact_at(&mut bytes, 0).with_context(shown)?;
    let is = match Thing::of(&bytes) {
        Some(Thing::Segment) => "segment",
        Some(Thing::Ledger) => "rows",
        Some(Thing::Manifest | Thing::Page) => "manifest",
        Some(Thing::Commit) => "commit",
        None => "nothing that a store or its bucket has",
    };
    anyhow::ensure!(is == what.as_str(), "{} is no {}: it is {is}", shown(), what.as_str());
    Ok(bytes.into())
}

/// Looks for damage in a store and its bucket.
///
/// # Errors
/// It could not be looked at.
pub(in crate::cli) async fn verify(
    world: &World,
    config: Config,
    bucket: Option<&ObjectStore>,
    depth: Depth,
    format: Format,
) -> anyhow::Result<Report> {
    let objects = bucket.map(|bucket| Arc::clone(&bucket.objects));
    let depth = match depth {
        Depth::Local => verify::Depth::Local,
        Depth::Remote => verify::Depth::Remote,
        Depth::Both => verify::Depth::Both,
        Depth::Deep => verify::Depth::Deep,
    };
    let found = Store::verify(world.clone(), config, objects, depth).await?;
    let text = match format {
        Format::Text => text(&found),
        Format::Json => json(&found),
    };
    Ok(Report { verdict: verdict(&found.findings), text })
}

/// What the store below `data` is made with.
fn config(data: &Path, restore: Restore) -> Config {
    Config { erase_within: restore.erase_within, ..Config::new(data.join("store")) }
}

/// Makes the store below `data` out of what a bucket has.
///
/// # Errors
/// It could not be made; what of it is damaged is in [`RestoreError::Damaged`].
pub(in crate::cli) async fn bootstrap(
    world: &World,
    data: &Path,
    bucket: &ObjectStore,
    restore: Restore,
) -> Result<restore::Report, RestoreError> {
    let options = Options {
        at: moment(restore.at),
        existing: match restore.existing {
            Existing::Keep => Over::Keep,
            Existing::Replace => Over::SetAside,
        },
        losses: match restore.losses {
            Losses::Refuse => Rest::Refuse,
            Losses::Accept => Rest::Accept,
        },
    };
    let holder = format!(
        "pid {}, weir {} bootstrap, since {}",
        std::process::id(),
        env!("CARGO_PKG_VERSION"),
        date::rfc3339(WallMs::new(world.clock.wall_ms())),
    );
    let (config, objects) = (config(data, restore), Arc::clone(&bucket.objects));
    Store::bootstrap(world.clone(), config, objects, options, &holder).await
}

fn moment(at: Option<Moment>) -> restore::Moment {
    match at {
        None => restore::Moment::Newest,
        Some(Moment::Generation(generation)) => restore::Moment::Generation(generation),
        Some(Moment::Time(time)) => restore::Moment::Time(time),
    }
}

fn verdict(findings: &[Finding]) -> Verdict {
    if findings.is_empty() { Verdict::Sound } else { Verdict::Problems }
}

/// What became of a bootstrap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Restored,
    /// Some of it can't be restored, so nothing was.
    Refused,
    /// Nobody asked for more than to look.
    Looked,
}

fn restored(report: &restore::Report, outcome: Outcome, format: Format) -> Report {
    let text = match format {
        Format::Json => restored_json(report, outcome),
        Format::Text => {
            let made = date::rfc3339(report.created);
            let refused = match outcome {
                Outcome::Refused => "nothing was restored: --partial restores the rest\n",
                Outcome::Restored | Outcome::Looked => "",
            };
            format!("{report}made         {made}\n{refused}")
        }
    };
    Report { verdict: verdict(&report.findings), text }
}

fn restored_json(report: &restore::Report, outcome: Outcome) -> String {
    let document = json!({
        "ok": report.findings.is_empty(),
        "restored": outcome == Outcome::Restored,
        "generation": report.generation,
        "created": date::rfc3339(report.created),
        "through_commit": report.through,
        "claimed": (report.claimed > 0).then_some(report.claimed),
        "recoveries": report.recoveries,
        "streams": (outcome == Outcome::Restored).then_some(report.streams),
        "segments": report.segments,
        "segment_bytes": report.segment_bytes,
        "ledgers": report.ledgers,
        "ledger_bytes": report.ledger_bytes,
        "restorable": { "oldest": report.oldest, "newest": report.newest },
        "set_aside": report.set_aside.as_ref().map(|path| path.display().to_string()),
        "findings": findings(&report.findings),
    });
    format!("{document:#}\n")
}

pub(super) fn findings(findings: &[Finding]) -> serde_json::Value {
    let told = findings.iter().map(
        |Finding { rule, object, text }| json!({ "rule": rule, "object": object, "text": text }),
    );
    told.collect()
}

fn text(found: &Findings) -> String {
    let Checked { streams, commits, files, blocks, manifests, objects, object_bytes } =
        found.checked;
    let mut text = format!(
        "store        {streams} streams, {commits} commits in the log, {files} files, {blocks} \
         blocks\nbucket       {manifests} manifests, {objects} objects, {object_bytes} bytes \
         read\nproblems     {}\n",
        found.findings.len()
    );
    for finding in &found.findings {
        text.push_str(&format!("  {finding}\n"));
    }
    text
}

fn json(found: &Findings) -> String {
    let findings = findings(&found.findings);
    let Checked { streams, commits, files, blocks, manifests, objects, object_bytes } =
        found.checked;
    let checked = json!({
        "streams": streams,
        "commits": commits,
        "files": files,
        "blocks": blocks,
        "manifests": manifests,
        "objects": objects,
        "object_bytes": object_bytes,
    });
    let ok = found.findings.is_empty();
    let document = json!({ "ok": ok, "findings": findings, "checked": checked });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_recovery_counts_on_the_time_in_which_its_store_will_erase() {
        let restore = Restore {
            at: None,
            existing: Existing::Keep,
            losses: Losses::Refuse,
            erase_within: Duration::from_secs(3600),
        };
        let config = config(Path::new("/d"), restore);
        assert_eq!(config.erase_within, restore.erase_within);
        assert_eq!(config.dir, Path::new("/d/store"));
    }
}
