//! Command lines of the commands without a server, and what is asked of whom.

use std::{cell::RefCell, io, path::Path};

use clap::{CommandFactory as _, Parser};
use weir_engine::types::WallMs;
use weir_io::{memory::Machine, os};

use super::*;
use crate::cli::store::StoreKind;

const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: OfflineCommand,
}

#[derive(Debug, Parser)]
struct ServeLine {
    #[command(flatten)]
    bootstrap: ServeBootstrapFlags,
}

fn parse(line: &str) -> Result<Offline, String> {
    let args = ["weir"].into_iter().chain(line.split_whitespace());
    let line = Line::try_parse_from(args).map_err(|error| error.to_string())?;
    let environment = [("DS_ROOT".to_owned(), "/d".to_owned())].into_iter().collect();
    line.command.resolve(&environment).map_err(|error| error.to_string())
}

#[track_caller]
fn place(offline: &Offline) -> (&Path, StoreKind) {
    let place = match offline {
        Offline::Bootstrap(place, ..)
        | Offline::CheckBootstrap(place, ..)
        | Offline::Verify(place, ..)
        | Offline::Garbage(place, _) => place,
        Offline::Inspect(..) => panic!("it has no place"),
    };
    (&place.data, place.object_store.kind)
}

#[test]
fn every_flag_is_explained() {
    let mut command = Line::command();
    command.build();
    command.clone().debug_assert();
    for command in command.get_subcommands().filter(|it| it.get_name() != "help") {
        assert!(command.get_about().is_some(), "{command}");
        for flag in command.get_arguments() {
            assert!(flag.get_help().is_some(), "{command} {flag:?}");
        }
    }
}

#[test]
fn a_bootstrap_is_of_the_newest_manifest_and_over_nothing_unless_asked() {
    let eight = WallMs::new(1_795_161_600_000);
    for (line, at, existing) in [
        ("bootstrap", None, Existing::Keep),
        ("bootstrap --partial", None, Existing::Keep),
        ("bootstrap --force", None, Existing::Replace),
        ("bootstrap --at 17", Some(Moment::Generation(17)), Existing::Keep),
        ("bootstrap --at 2026-11-20T08:00:00Z", Some(Moment::Time(eight)), Existing::Keep),
        ("bootstrap --at=2026-11-20T09:00:00+01:00", Some(Moment::Time(eight)), Existing::Keep),
    ] {
        let offline = parse(line).expect(line);
        assert_eq!(place(&offline), (Path::new("/d"), StoreKind::Local));
        let Offline::Bootstrap(_, restore, format) = offline else { panic!("{line}: {offline:?}") };
        assert_eq!(format, Format::Text);
        let (losses, erase_within) = (losses(line.contains("--partial")), WEEK);
        assert_eq!(restore, Restore { at, existing, losses, erase_within }, "{line}");
    }
    match parse("bootstrap --erase-within 1h").expect("valid") {
        Offline::Bootstrap(_, restore, _) => assert_eq!(restore.erase_within, HOUR),
        other => panic!("{other:?}"),
    }
    let offline = parse("bootstrap --check --at 3 --data /e --object-store memory").expect("valid");
    assert_eq!(place(&offline), (Path::new("/e"), StoreKind::Memory));
    let Offline::CheckBootstrap(_, at, format) = offline else { panic!("{offline:?}") };
    assert_eq!((at, format), (Some(Moment::Generation(3)), Format::Text));
    for line in ["bootstrap --json", "bootstrap --check --json"] {
        match parse(line).expect(line) {
            Offline::Bootstrap(.., format) | Offline::CheckBootstrap(.., format) => {
                assert_eq!(format, Format::Json, "{line}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn a_server_may_begin_with_a_bootstrap_by_either_name() {
    let parse = |line: &str| {
        let args = ["weir"].into_iter().chain(line.split_whitespace());
        ServeLine::try_parse_from(args).map(|line| line.bootstrap.restore(HOUR))
    };
    let newest =
        Restore { at: None, existing: Existing::Keep, losses: Losses::Refuse, erase_within: HOUR };
    for (line, expect) in [
        ("", None),
        ("--bootstrap", Some(newest)),
        ("--bootstrap-from-r2", Some(newest)),
        ("--bootstrap --force", Some(Restore { existing: Existing::Replace, ..newest })),
        ("--bootstrap --partial", Some(Restore { losses: Losses::Accept, ..newest })),
        ("--bootstrap --at 2", Some(Restore { at: Some(Moment::Generation(2)), ..newest })),
    ] {
        assert_eq!(parse(line).expect(line), expect, "{line}");
    }
    for line in ["--force", "--partial", "--at 2"] {
        assert!(parse(line).is_err(), "{line} without --bootstrap");
    }
}

#[test]
fn damage_is_looked_for_in_one_place_or_in_both() {
    for (line, depth, format) in [
        ("verify", Depth::Both, Format::Text),
        ("verify --local", Depth::Local, Format::Text),
        ("verify --remote --json", Depth::Remote, Format::Json),
        ("verify --deep", Depth::Deep, Format::Text),
    ] {
        match parse(line).expect(line) {
            Offline::Verify(_, said, written) => assert_eq!((said, written), (depth, format)),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn a_file_is_inspected_as_what_it_is_said_to_be() {
    for (word, expect) in [
        ("segment", Stored::Segment),
        ("manifest", Stored::Manifest),
        ("rows", Stored::Rows),
        ("log", Stored::Log),
        ("unpublished", Stored::Unpublished),
    ] {
        match parse(&format!("inspect {word} /a/b")).expect(word) {
            Offline::Inspect(what, place, showing) => {
                assert_eq!((what, place.as_path()), (expect, Path::new("/a/b")));
                assert_eq!(showing, Showing { format: Format::Text, skip: 0, limit: None });
            }
            other => panic!("{word}: {other:?}"),
        }
    }
    let some = Showing { format: Format::Json, skip: 5, limit: Some(7) };
    match parse("inspect rows /a/b --json --skip 5 --limit 7").expect("valid") {
        Offline::Inspect(_, _, showing) => assert_eq!(showing, some),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (line, says) in [
        ("bootstrap --check --force", "--force"),
        ("bootstrap --check --partial", "--partial"),
        ("bootstrap --at 0", "counted from 1"),
        ("bootstrap --at yesterday", "generation or a time"),
        ("bootstrap --at 2026-11-20", "generation or a time"),
        ("bootstrap --object-store s3", "--bucket"),
        ("verify --local --remote", "--remote"),
        ("verify --deep --local", "--local"),
        ("inspect segment", "FILE"),
        ("inspect tape /a", "tape"),
        ("gc", "--dry-run"),
        ("", "weir <COMMAND>"),
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.contains(says), "{line}: {error}");
    }
}

/// Notes what it is asked, and finds problems in files that are called so.
#[derive(Default)]
struct Listener {
    asked: RefCell<Vec<String>>,
}

impl Listener {
    fn hear(&self, what: String) -> anyhow::Result<Report> {
        let problems = what.contains("bad");
        self.asked.borrow_mut().push(what);
        let verdict = if problems { Verdict::Problems } else { Verdict::Sound };
        Ok(Report { verdict, text: String::new() })
    }
}

/// Whether the bucket was tried out.
fn tried(bucket: &ObjectStore) -> bool {
    bucket.counts.snapshot().iter().count() > 0
}

impl Engine for Listener {
    async fn bootstrap(
        &self,
        _: &World,
        _: &Place,
        bucket: &ObjectStore,
        restore: Restore,
        _: Format,
    ) -> anyhow::Result<Report> {
        self.hear(format!("bootstrap, tried {}, {:?}", tried(bucket), restore.existing))
    }

    async fn check_bootstrap(
        &self,
        _: &World,
        bucket: &ObjectStore,
        at: Option<Moment>,
        _: Format,
    ) -> anyhow::Result<Report> {
        self.hear(format!("check, tried {}, {at:?}", tried(bucket)))
    }

    async fn verify(
        &self,
        _: &World,
        _: &Place,
        bucket: Option<&ObjectStore>,
        depth: Depth,
        format: Format,
    ) -> anyhow::Result<Report> {
        self.hear(format!("verify, tried {:?}, {depth:?}, {format:?}", bucket.map(tried)))
    }

    async fn inspect(
        &self,
        _: &World,
        what: Stored,
        place: &Path,
        _: Showing,
        _: &mut dyn Write,
    ) -> anyhow::Result<Report> {
        self.hear(format!("inspect {what:?} {}", place.display()))
    }

    async fn garbage(
        &self,
        _: &World,
        bucket: &ObjectStore,
        format: Format,
    ) -> anyhow::Result<Report> {
        self.hear(format!("garbage, tried {}, {format:?}", tried(bucket)))
    }
}

#[tokio::test]
async fn only_what_writes_tries_the_bucket_out() {
    let world = os::world().expect("a runtime is running");
    let listener = Listener::default();
    for (line, heard) in [
        ("bootstrap", "bootstrap, tried true, Keep"),
        ("bootstrap --check", "check, tried false, None"),
        ("verify", "verify, tried Some(false), Both, Text"),
        ("verify --local --json", "verify, tried None, Local, Json"),
        ("gc --dry-run", "garbage, tried false, Text"),
        ("gc --dry-run --json", "garbage, tried false, Json"),
    ] {
        let task = parse(&format!("{line} --object-store memory")).expect(line);
        let report = run(&listener, &world, task, &mut io::sink()).await.expect(line);
        assert_eq!(report.code(), 0);
        assert_eq!(listener.asked.borrow_mut().pop().as_deref(), Some(heard));
    }
    let task = parse("inspect rows /bad").expect("valid");
    let report = run(&listener, &world, task, &mut io::sink()).await.expect("a report");
    assert_eq!(report.code(), PROBLEMS);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_not_there_is_no_empty_bucket() {
    let machine = Machine::new(1);
    tokio::task::LocalSet::new()
        .run_until(async {
            let world = machine.boot(std::time::Duration::ZERO);
            let listener = Listener::default();
            for line in ["bootstrap --check", "verify", "verify --deep", "gc --dry-run"] {
                let task = parse(line).expect(line);
                let error = run(&listener, &world, task, &mut io::sink()).await.expect_err(line);
                assert!(format!("{error:#}").contains("there is no bucket"), "{error:#}");
            }
            assert!(listener.asked.borrow().is_empty());
            let made = world.disk.exists(Path::new("/d/bucket")).expect("the disk works");
            assert!(!made, "to look is not to make");
        })
        .await;
}
