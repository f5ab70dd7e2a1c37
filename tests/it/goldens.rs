//! Stories and tables as they look. A changed golden is a change of behaviour: read it before taking it over with
//! `SNAPSHOTS=overwrite cargo test --test it`.

use super::program::{command, sevsim};

fn golden(args: &[&str], file: &str) {
    let out = command(args).output().expect("the program starts").stdout;
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(file);
    snapbox::Assert::new()
        .action_env("SNAPSHOTS")
        .eq(String::from_utf8(out).expect("text"), snapbox::Data::read_from(&path, None));
}

#[test]
fn the_story_of_no_flush() {
    let args = ["check", "reclaim-one-vcpu", "--part", "rome", "--policy", "no-flush", "--stories", "all"];
    golden(&args, "no-flush.txt");
}

#[test]
fn the_story_of_the_second_flusher() {
    golden(&["check", "two-flushers", "--part", "rome", "--policy", "clear-remark"], "clear-remark.txt");
}

#[test]
fn a_verdict_without_a_story() {
    golden(&["check", "reclaim-one-vcpu", "--part", "rome", "--policy", "sticky-wbnoinvd"], "holds.txt");
}

#[test]
fn the_matrix() {
    golden(&["test", "reclaim-one-vcpu", "dma-on-coherent-part", "no-dma-on-coherent-part"], "matrix.txt");
}

#[test]
fn the_lists() {
    golden(&["list", "policies"], "policies.txt");
    golden(&["list", "litmus"], "litmus.txt");
}

#[test]
fn goldens_name_no_place_on_a_machine() {
    assert!(!sevsim(&["list", "policies", "--format", "json"]).out.contains(env!("CARGO_MANIFEST_DIR")));
}
