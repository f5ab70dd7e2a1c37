//! How results leave the program: colours, closed pipes, interruptions.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::program::{Folder, command, finish, ran, sevsim, sevsim_in};

const ARGS: [&str; 6] = ["check", "reclaim-one-vcpu", "--part", "rome", "--policy", "no-flush"];

#[test]
fn colours_come_only_where_they_are_wanted() {
    let plain = sevsim(&ARGS).ends(3);
    assert!(!plain.out.contains('\x1b'), "no terminal, no colour");
    let with = |name: &str| {
        let mut command = command(&ARGS);
        command.env("CLICOLOR_FORCE", "1").env(name, "1");
        finish(command)
    };
    let forced = with("CLICOLOR_FORCE");
    assert!(forced.out.contains("\x1b[31;1mVIOLATED"), "{}", forced.out);
    let mut quiet = command(&ARGS);
    quiet.env("NO_COLOR", "1");
    assert_eq!(finish(quiet).out, plain.out);
    assert_eq!(anstream::adapter::strip_str(&forced.out).to_string(), plain.out);
}

#[test]
fn results_are_plain_ascii() {
    for args in [&ARGS[..], &["test", "reclaim-one-vcpu"], &["list", "policies"]] {
        let ran = sevsim(args);
        assert!(ran.out.is_ascii(), "{args:?}");
        assert!(ran.out.lines().all(|l| l == l.trim_end()), "trailing spaces: {args:?}");
    }
}

#[test]
fn nothing_but_results_comes_on_standard_output_and_no_progress_without_a_terminal() {
    let ran = sevsim(&["check", "two-flushers", "--policy", "clear-remark", "--format", "json"]).ends(3);
    assert!(ran.err.is_empty(), "{}", ran.err);
    assert_eq!(ran.json().len(), ran.out.lines().count());
}

#[test]
fn a_closed_pipe_is_no_panic_and_keeps_the_exit_code() {
    for args in [&ARGS[..], &["list", "policies"], &["show", "kernel", "linux-6.17"], &["man"]] {
        let mut command = command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(if args == &ARGS[..] { 3 } else { 0 }), "{args:?}: {err}");
        assert!(err.is_empty(), "{err}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said() {
    let mut command = command(&["list", "policies"]);
    command.stdout(std::fs::File::create("/dev/full").unwrap()).stderr(Stdio::piped());
    let output = ran(command.spawn().unwrap().wait_with_output().unwrap());
    assert_eq!(output.code, 1);
    assert!(output.err.contains("cannot be written"), "{}", output.err);
}

/// Starts the program, waits, and sends it a signal by its id.
#[cfg(unix)]
fn interrupted(folder: &Folder, args: &[&str], after: Duration) -> super::program::Ran {
    let mut command = command(args);
    command.current_dir(&folder.path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    std::thread::sleep(after);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    ran(child.wait_with_output().unwrap())
}

/// A litmus test with far more states than can be searched in a test, and no event in them.
#[cfg(unix)]
fn endless(folder: &Folder) {
    let mut text = "+++\ndescription = \"Long\"\nparts = [\"rome\"]\npcpus = 6\nexpect = []\n".to_owned();
    text.push_str("pages = [{ name = \"P\" }, { name = \"Q\" }, { name = \"R\" }, { name = \"S\" }]\n");
    for pcpus in ["[0, 1]", "[0, 1]"] {
        text.push_str(&format!("[[vcpu]]\nguest = \"guest\"\npcpus = {pcpus}\n"));
    }
    let mut body = "void guest(void)\n{\n\tguest_write(P);\n\tguest_write(Q);\n\tguest_write(R);\n\tguest_write(S);\n}\n".to_owned();
    for (page, pcpu) in [("P", 2), ("Q", 3), ("R", 4), ("S", 5)] {
        text.push_str(&format!("[[task]]\nrun = \"reclaim_{page}\"\npcpus = [{pcpu}]\n"));
        body.push_str(&format!("void reclaim_{page}(void)\n{{\n\tmadvise_dontneed(vm0, {page});\n}}\n"));
    }
    folder.file("long.litmus", format!("{text}+++\n{body}"));
}

#[cfg(unix)]
#[test]
fn an_interruption_with_nothing_to_show_ends_with_130() {
    let folder = Folder::new();
    endless(&folder);
    let args = ["check", "long.litmus", "--policy", "sticky-wbnoinvd", "--part", "rome"];
    let ran = interrupted(&folder, &args, Duration::from_secs(2)).ends(130).says(&["interrupted"]);
    assert!(ran.out.is_empty(), "{}", ran.out);
}

#[cfg(unix)]
#[test]
fn an_interruption_with_results_printed_says_what_to_type_and_ends_with_75() {
    let folder = Folder::new();
    endless(&folder);
    let args = [
        "check",
        "reclaim-one-vcpu",
        "long.litmus",
        "--policy",
        "sticky-wbnoinvd",
        "--part",
        "rome",
        "--format",
        "json",
    ];
    let ran = interrupted(&folder, &args, Duration::from_secs(3)).ends(75);
    let ran = ran.says(&["to go on:", "sevsim check long.litmus --policy sticky-wbnoinvd --part rome"]);
    assert_eq!(ran.json().len(), 1);
    assert_eq!(ran.json()[0]["litmus"], "reclaim-one-vcpu");
}

#[cfg(unix)]
#[test]
fn interrupted_tests_and_comparisons_print_what_is_done() {
    let folder = Folder::new();
    endless(&folder);
    let args = ["test", "reclaim-one-vcpu", "long.litmus", "--policy", "sticky-wbnoinvd", "--part", "rome"];
    let ran = interrupted(&folder, &args, Duration::from_secs(3)).ends(75);
    let ran = ran.says(&["interrupted: 1 of 2 cases done", "sevsim test long.litmus"]);
    assert!(ran.out.contains("reclaim-one-vcpu  rome  -"), "{}", ran.out);
    let args = ["compare", "--policy", "no-flush", "--accesses", "18446744073709551615"];
    let ran = interrupted(&folder, &args, Duration::from_secs(2)).ends(130).says(&["interrupted"]);
    assert!(ran.out.is_empty(), "{}", ran.out);
}

#[test]
fn a_results_file_of_another_run_is_no_input() {
    let folder = Folder::new();
    folder.file("x.json", "{\"schema\":\"sevsim.run/1\"}\n");
    sevsim_in(&folder, &["replay", "x.json"]).ends(2).says(&["no line has a schedule"]);
}
