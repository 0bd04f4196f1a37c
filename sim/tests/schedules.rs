//! Named fault schedules tell what they told before: what clients were told and how the store
//! looked at fixed points is kept in `snapshots/schedules/`.

use std::process::Command;

use sim::schedule;

#[test]
fn every_schedule_tells_what_its_snapshot_says() {
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../snapshots/schedules"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for schedule in &schedule::ALL {
        // As somebody runs it; a simulation has its process to itself.
        let mut program = Command::new(env!("CARGO_BIN_EXE_sim"));
        let ended = program.args(["run", "--schedule", schedule.name]).output();
        let ended = ended.expect("the simulator can be started");
        let told = String::from_utf8(ended.stdout).expect("schedules tell text");
        assert!(ended.status.success(), "{}: {told}", schedule.name);
        settings.bind(|| insta::assert_snapshot!(schedule.name, told));
    }
}
